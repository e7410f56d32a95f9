/* A guest that reads back what it was given: CPUID leaves, MSRs, HVM parameters, and its command line. It starts as hvmloader does, or as a PVH
 * kernel: in 32-bit protected mode with flat segments, without paging. It writes lines to Xen's port for messages of guests
 * (XEN_HVM_DEBUGCONS_IOPORT), the last of which is `readback end`, and powers off. Numbers are hexadecimal.
 *
 *   readback cpuid LEAF.SUBLEAF EAX EBX ECX EDX
 *   readback msr NUMBER VALUE        readback msr NUMBER fault
 *   readback param NUMBER RESULT VALUE
 *   readback start modules COUNT     readback start cmdline TEXT
 */
typedef unsigned int u32;
typedef unsigned long long u64;

/* The note is XEN_ELFNOTE_PHYS32_ENTRY. rdmsr, at which a fault may come, has two bytes. */
__asm__(".section .note.Xen, \"a\", @note\n"
        ".long 4, 4, 18\n.asciz \"Xen\"\n.long _start\n"
        ".text\n.globl _start\n"
        "_start: cli\nmov $stack_end, %esp\nlgdt gdt_pointer\nljmp $8, $1f\n"
        "1: mov $16, %eax\nmov %eax, %ds\nmov %eax, %es\nmov %eax, %ss\npush %ebx\ncall run\n"
        "2: hlt\njmp 2b\n"
        ".globl on_fault\n"
        "on_fault: add $4, %esp\nmovl $1, faulted\naddl $2, (%esp)\niret\n"
        ".data\n.align 8\ngdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
        "gdt_pointer: .word 23\n.long gdt\n"
        ".bss\n.align 16\n.skip 4096\nstack_end:\n.text\n");

void on_fault(void);
volatile u32 faulted;
static u64 gates[32];
static unsigned char hypercalls[4096] __attribute__((aligned(4096)));

static void put(char c) { __asm__ volatile("outb %0, $0xe9" : : "a"(c)); }

static void text(const char *s) {
    while (*s)
        put(*s++);
}

static void hex(u32 value) {
    for (int shift = 28; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

static void cpuid(u32 leaf, u32 subleaf, u32 out[4]) {
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

static void show_cpuid(u32 leaf, u32 subleaf) {
    u32 out[4];
    cpuid(leaf, subleaf, out);
    text("readback cpuid ");
    hex(leaf);
    put('.');
    hex(subleaf);
    for (int i = 0; i < 4; i++) {
        put(' ');
        hex(out[i]);
    }
    put('\n');
}

static void show_msr(u32 number) {
    u32 low = 0, high = 0;
    faulted = 0;
    __asm__ volatile("rdmsr" : "+a"(low), "+d"(high) : "c"(number) : "memory");
    text("readback msr ");
    hex(number);
    put(' ');
    if (faulted)
        text("fault");
    else {
        hex(high);
        hex(low);
    }
    put('\n');
}

static u32 hypercall(u32 number, u32 first, void *second) {
    u32 result;
    __asm__ volatile("call *%3"
                     : "=a"(result), "+b"(first), "+c"(second)
                     : "D"((u32)hypercalls + 32 * number)
                     : "memory");
    return result;
}

static void show_params(void) {
    struct {
        u32 domid, index;
        u64 value;
    } param;
    for (u32 i = 0; i < 40; i++) {
        param.domid = 0x7ff0; /* DOMID_SELF */
        param.index = i;
        param.value = 0;
        u32 result = hypercall(34, 1, &param); /* hvm_op, HVMOP_get_param */
        text("readback param ");
        hex(i);
        put(' ');
        hex(result);
        put(' ');
        hex(param.value >> 32);
        hex(param.value);
        put('\n');
    }
}

/* The start of struct hvm_start_info (xen/include/public/arch-x86/hvm/start_info.h). */
struct start {
    u32 magic, version, flags, modules;
    u64 modlist, cmdline;
};

static void show_start(const struct start *start) {
    if (start->magic != 0x336ec578)
        return;
    text("readback start modules ");
    hex(start->modules);
    put('\n');
    if (start->cmdline) {
        text("readback start cmdline ");
        text((const char *)(u32)start->cmdline);
        put('\n');
    }
}

void run(const struct start *start) {
    static const u32 leaves[] = {0, 1, 7, 0xd, 0x80000000, 0x80000001, 0x80000007, 0x80000008, 0x8000000a};
    static const u32 msrs[] = {0x1b,       0x3a,       0xce,       0x10a,      0x140,      0x1234,     0xc0000080, 0xc0010114,
                               0x40000000, 0x40000001, 0x40000002, 0x40000022, 0x40000023, 0x40000073, 0x400000b0};
    struct {
        unsigned short limit;
        u32 base;
    } __attribute__((packed)) pointer = {sizeof gates - 1, (u32)gates};
    u32 out[4], handler = (u32)on_fault;

    gates[13] = ((u64)(handler & 0xffff0000) << 32) | 0x8e0000000000 | 8 << 16 | (handler & 0xffff);
    __asm__ volatile("lidt %0" : : "m"(pointer));
    for (u32 i = 0; i < sizeof leaves / sizeof *leaves; i++)
        show_cpuid(leaves[i], 0);
    for (u32 i = 0; i < 7; i++) {
        show_cpuid(0x40000000 + i, 0);
        show_cpuid(0x40000100 + i, 0);
    }
    for (u32 i = 0; i < sizeof msrs / sizeof *msrs; i++)
        show_msr(msrs[i]);
    /* Xen's leaves come behind those of Hyper-V, and say which MSR fills the page of hypercalls. */
    u32 base = 0x40000000;
    cpuid(base, 0, out);
    if (out[1] != 0x566e6558) /* XenV */
        base += 0x100;
    cpuid(base + 2, 0, out);
    __asm__ volatile("wrmsr" : : "c"(out[1]), "a"(hypercalls), "d"(0) : "memory");
    show_params();
    show_start(start);
    text("readback end\n");
    u32 reason = 0;              /* SHUTDOWN_poweroff */
    hypercall(29, 2, &reason);   /* sched_op, SCHEDOP_shutdown */
}
