/* A guest that uses QEMU's device edu (docs/specs/edu.txt of QEMU), which it finds on its PCI bus, by its registers and by DMA. It
 * starts as hvmloader does: in 32-bit protected mode with flat segments, without paging. It writes lines to Xen's port for
 * messages of guests (XEN_HVM_DEBUGCONS_IOPORT). Then the device writes cafe0001 to the guest's memory at 0x800000, again and
 * again, as long as the guest runs; without a device it waits. Numbers are hexadecimal.
 *
 *   pci card SLOT            there is an e1000e
 *   pci edu SLOT             the device is there
 *   pci factorial NUMBER     5! by its registers
 *   pci dma NUMBER           what the device has read from the guest's memory, and written to another place there: cafe0001
 *   pci end
 */
typedef unsigned int u32;

__asm__(".text\n.globl _start\n"
        "_start: cli\nmov $stack_end, %esp\nlgdt gdt_pointer\nljmp $8, $1f\n"
        "1: mov $16, %eax\nmov %eax, %ds\nmov %eax, %es\nmov %eax, %ss\ncall run\n"
        "2: pause\njmp 2b\n" /* not hlt without interrupts: Xen takes that for power off */
        ".data\n.align 8\ngdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
        "gdt_pointer: .word 23\n.long gdt\n"
        ".bss\n.align 16\n.skip 4096\nstack_end:\n.text\n");

static void put(char c) { __asm__ volatile("outb %0, $0xe9" : : "a"(c)); }

static void say(const char *s, u32 value) {
    while (*s)
        put(*s++);
    put(' ');
    for (int shift = 28; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
    put('\n');
}

static void outl(unsigned short port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static u32 inl(unsigned short port) {
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void select(u32 slot, u32 offset) { outl(0xcf8, 0x80000000 | slot << 11 | offset); }

/* Its registers, where the guest has neither memory nor another device. */
static volatile u32 *const edu = (volatile u32 *)0xf2000000;

static u32 source __attribute__((aligned(16))), target __attribute__((aligned(16)));

/* Copies 4 bytes; bit 0 of the command starts it and lasts as long, bit 1 is for a copy out of the device. */
static int copy(u32 from, u32 to, u32 command) {
    edu[0x80 / 4] = from;
    edu[0x88 / 4] = to;
    edu[0x90 / 4] = 4;
    edu[0x98 / 4] = command;
    for (u32 i = 0; i < 100000000; i++)
        if (!(edu[0x98 / 4] & 1))
            return 1;
    return 0;
}

/* Where the device writes in the end. */
static const u32 goal = 0x800000, buffer = 0x40000; /* the latter is in the device */

void run(void) {
    int found = 0;
    for (u32 slot = 0; slot < 32; slot++) {
        select(slot, 0);
        const u32 id = inl(0xcfc);
        if (id == 0x10d38086)
            say("pci card", slot);
        if (id != 0x11e81234)
            continue;
        say("pci edu", slot);
        select(slot, 0x10);
        outl(0xcfc, (u32)edu);
        select(slot, 4);
        outl(0xcfc, 6); /* memory and bus master */
        edu[8 / 4] = 5;
        while (edu[0x20 / 4] & 1)
            ;
        say("pci factorial", edu[8 / 4]);
        source = 0xcafe0001;
        if (copy((u32)&source, buffer, 1) && copy(buffer, (u32)&target, 3))
            say("pci dma", *(volatile u32 *)&target);
        found = 1;
    }
    say("pci end", 0);
    while (found)
        copy(buffer, goal, 3);
}
