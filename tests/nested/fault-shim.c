/*
 * Makes calls of dombuild's to Xen's libraries fail, for tests/dom0/faults.rs; loaded with LD_PRELOAD.
 *
 * Between dombuild and the libraries stands a stub for every function of libxenctrl and libxenguest that one of them
 * calls, and below the libraries `ioctl` and `mmap` of Xen's devices; between dombuild and xenstored, `write` and `read`;
 * between dombuild and dom0's kernel, `ioctl` of loop devices, network interfaces and tap devices. Each call is counted, from
 * 0 on. One whose
 * number stands in DOMBUILD_FAULTS ("NUMBER:ERRNO,..." in decimal) is not made: it returns what means failure there, and
 * sets errno. The file that DOMBUILD_FAULTS_LOG names gets a line of WIDTH bytes for each call: the function that the
 * program itself called last, the one counted here, and whether it was made.
 *
 * A child of fork counts on. What is started with exec is left alone: the constructor takes LD_PRELOAD out of the
 * environment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <link.h>
#include <asm/ioctl.h> /* for if_tun.h */
#include <linux/if_tun.h>
#include <linux/loop.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>

#define WIDTH 96
#define MOST_CALLS 65536
#define MOST_FAULTS 4

/* How a function tells that it failed. */
enum how { MINUS_ONE, MINUS_ERRNO, NOTHING /* NULL */ };

struct site {
    const char *name;
    enum how how;
    void *real;
};

/* What the stub does next: jump to the function, or return the value. */
struct answer {
    void *real;
    long value;
};

static unsigned long fault_at[MOST_FAULTS];
static int fault_errno[MOST_FAULTS];
static int faults;
static uintptr_t program_start, program_end;
static unsigned long *counter; /* shared with children */
static char *lines;            /* the log, mapped */
static const char *outer = "-";

static void give_up(const char *why)
{
    fprintf(stderr, "fault-shim: %s\n", why);
    abort();
}

static int find_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD)
            continue;
        uintptr_t start = info->dlpi_addr + part->p_vaddr;
        if (!program_start || start < program_start)
            program_start = start;
        if (start + part->p_memsz > program_end)
            program_end = start + part->p_memsz;
    }
    return 1; /* the program is the first one, and enough */
}

__attribute__((constructor)) static void begin(void)
{
    unsetenv("LD_PRELOAD");
    dl_iterate_phdr(find_program, NULL);
    const char *path = getenv("DOMBUILD_FAULTS_LOG");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0 || ftruncate(file, (off_t)WIDTH * MOST_CALLS))
        give_up("DOMBUILD_FAULTS_LOG names no file that can be written");
    lines = mmap(NULL, (size_t)WIDTH * MOST_CALLS, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (lines == MAP_FAILED || counter == MAP_FAILED)
        give_up("cannot map the log");
    close(file);
    const char *text = getenv("DOMBUILD_FAULTS");
    for (int used; text && *text && faults < MOST_FAULTS; text += used, faults++) {
        if (sscanf(text, "%lu:%d%n", &fault_at[faults], &fault_errno[faults], &used) != 2)
            give_up("DOMBUILD_FAULTS is not NUMBER:ERRNO,...");
        text += text[used] == ',';
    }
}

/* Counts a call; the errno with which it shall fail, or 0. */
static int count(const char *name, void *caller)
{
    if (!lines)
        return 0; /* before the constructor */
    if ((uintptr_t)caller >= program_start && (uintptr_t)caller < program_end)
        outer = name;
    unsigned long number = __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
    int with = 0;
    for (int i = 0; i < faults; i++)
        if (fault_at[i] == number)
            with = fault_errno[i];
    if (number < MOST_CALLS) {
        char line[WIDTH + 1];
        snprintf(line, sizeof line, "%-39s %-39s %-14s ", outer, name, with ? "failed" : "made");
        line[WIDTH - 1] = '\n';
        memcpy(lines + number * WIDTH, line, WIDTH);
    }
    return with;
}

static void *real_of(const char *name)
{
    void *real = dlsym(RTLD_NEXT, name);
    if (!real)
        give_up(name);
    return real;
}

__attribute__((used, visibility("hidden"))) struct answer fault_ask(struct site *site, void *caller)
{
    int before = errno; /* a call may leave it alone, and dombuild may look at it then */
    if (!site->real)
        site->real = real_of(site->name);
    int with = count(site->name, caller);
    if (!with) {
        errno = before;
        return (struct answer){site->real, 0};
    }
    errno = with;
    return (struct answer){NULL, site->how == MINUS_ONE ? -1 : site->how == MINUS_ERRNO ? -with : 0};
}

/* Every stub comes here with its site in %rax, which it has pushed first, and all else as its caller left it. */
__asm__(".text\n"
        "fault_stub:\n"
        "\tpush %rdi\n\tpush %rsi\n\tpush %rdx\n\tpush %rcx\n\tpush %r8\n\tpush %r9\n"
        "\tmov %rax, %rdi\n"
        "\tmov 56(%rsp), %rsi\n" /* the return address */
        "\tcall fault_ask\n"
        "\tmov %rax, %r11\n\tmov %rdx, %r10\n"
        "\tpop %r9\n\tpop %r8\n\tpop %rcx\n\tpop %rdx\n\tpop %rsi\n\tpop %rdi\n\tpop %rax\n"
        "\ttest %r11, %r11\n"
        "\tje 1f\n"
        "\tjmp *%r11\n"
        "1:\tmov %r10, %rax\n"
        "\tret\n");

#define CALL(function, how)                                                                             \
    __attribute__((used, visibility("hidden"))) struct site fault_site_##function = {#function, how, NULL}; \
    __asm__(".text\n.globl " #function "\n.type " #function ", @function\n" #function ":\n"             \
            "\tpush %rax\n\tlea fault_site_" #function "(%rip), %rax\n\tjmp fault_stub\n"                 \
            ".size " #function ", . - " #function "\n");

/* libxenctrl and libxenguest, as dombuild calls them */
CALL(xc_interface_open, NOTHING)
CALL(xc_version, MINUS_ONE)
CALL(xc_physinfo, MINUS_ONE)
CALL(xc_domain_create, MINUS_ONE)
CALL(xc_domain_destroy, MINUS_ONE)
CALL(xc_domain_pause, MINUS_ONE)
CALL(xc_domain_unpause, MINUS_ONE)
CALL(xc_domain_send_trigger, MINUS_ONE)
CALL(xc_domain_shutdown, MINUS_ONE)
CALL(xc_domain_resume, MINUS_ONE)
CALL(xc_domain_save, MINUS_ONE)
CALL(xc_domain_restore, MINUS_ONE)
CALL(xc_domain_dumpcore, MINUS_ONE)
CALL(xc_domain_getvnuma, MINUS_ONE)
CALL(xc_domain_max_vcpus, MINUS_ONE)
CALL(xc_domain_setmaxmem, MINUS_ONE)
CALL(xc_domain_claim_pages, MINUS_ONE)
CALL(xc_domain_set_memory_map, MINUS_ONE)
CALL(xc_domain_set_memmap_limit, MINUS_ONE)
CALL(xc_domain_getinfolist, MINUS_ONE)
CALL(xc_domain_set_tsc_info, MINUS_ONE)
CALL(xc_domain_get_tsc_info, MINUS_ONE)
CALL(xc_domain_set_time_offset, MINUS_ONE)
CALL(xc_domain_hvm_getcontext, MINUS_ONE)
CALL(xc_domain_get_pod_target, MINUS_ONE)
CALL(xc_domain_set_pod_target, MINUS_ONE)
CALL(xc_domain_node_setaffinity, MINUS_ONE)
CALL(xc_domain_node_getaffinity, MINUS_ONE)
CALL(xc_domain_setvnuma, MINUS_ONE)
CALL(xc_numainfo, MINUS_ONE)
CALL(xc_send_debug_keys, MINUS_ONE)
CALL(xc_readconsolering, MINUS_ONE)
CALL(xc_domain_get_native_protocol, NOTHING)
CALL(xc_domain_ioport_permission, MINUS_ONE)
CALL(xc_domain_irq_permission, MINUS_ONE)
CALL(xc_domain_iomem_permission, MINUS_ONE)
CALL(xc_domain_memory_mapping, MINUS_ONE)
CALL(xc_physdev_map_pirq, MINUS_ONE)
CALL(xc_physdev_unmap_pirq, MINUS_ONE)
CALL(xc_assign_device, MINUS_ONE)
CALL(xc_deassign_device, MINUS_ONE)
CALL(xc_test_assign_device, MINUS_ONE)
CALL(xc_get_device_group, MINUS_ONE)
CALL(xc_cputopoinfo, MINUS_ONE)
CALL(xc_get_machine_memory_map, MINUS_ONE)
CALL(xc_vcpu_getinfo, MINUS_ONE)
CALL(xc_vcpu_getaffinity, MINUS_ONE)
CALL(xc_vcpu_setaffinity, MINUS_ONE)
CALL(xc_get_cpumap_size, MINUS_ONE)
CALL(xc_get_nodemap_size, MINUS_ONE)
CALL(xc_sched_credit_domain_get, MINUS_ONE)
CALL(xc_sched_credit_domain_set, MINUS_ONE)
CALL(xc_sched_credit2_domain_get, MINUS_ONE)
CALL(xc_sched_credit2_domain_set, MINUS_ONE)
CALL(xc_get_cpu_featureset, MINUS_ONE)
CALL(xc_cpu_policy_init, NOTHING)
CALL(xc_cpu_policy_get_size, MINUS_ONE)
CALL(xc_cpu_policy_get_domain, MINUS_ONE)
CALL(xc_cpu_policy_get_system, MINUS_ONE)
CALL(xc_cpu_policy_serialise, MINUS_ONE)
CALL(xc_set_domain_cpu_policy, MINUS_ONE)
CALL(xc_set_paging_mempool_size, MINUS_ONE)
CALL(xc_get_paging_mempool_size, MINUS_ONE)
CALL(xc_evtchn_alloc_unbound, MINUS_ONE)
CALL(xc_hvm_param_get, MINUS_ONE)
CALL(xc_hvm_param_set, MINUS_ONE)
CALL(xc_cpuid_apply_policy, MINUS_ERRNO)
CALL(xc_gnttab_query_size, MINUS_ONE)
CALL(xc_reserved_device_memory_map, MINUS_ONE)
CALL(xc_map_foreign_range, NOTHING)
CALL(xc_flask_context_to_sid, MINUS_ONE)
CALL(xc_cpupool_getinfo, NOTHING)
CALL(xc_dom_allocate, NOTHING)
CALL(xc_dom_kernel_max_size, MINUS_ONE)
CALL(xc_dom_module_max_size, MINUS_ONE)
CALL(xc_dom_kernel_mem, MINUS_ONE)
CALL(xc_dom_module_mem, MINUS_ONE)
CALL(xc_dom_boot_xen_init, MINUS_ONE)
CALL(xc_dom_parse_image, MINUS_ONE)
CALL(xc_dom_mem_init, MINUS_ONE)
CALL(xc_dom_boot_mem_init, MINUS_ONE)
CALL(xc_dom_build_image, MINUS_ONE)
CALL(xc_dom_boot_image, MINUS_ONE)
CALL(xc_dom_gnttab_init, MINUS_ONE)

/* libxenctrl, as libxenguest calls it */
CALL(xc__hypercall_bounce_pre, MINUS_ONE)
CALL(xc__hypercall_buffer_alloc, NOTHING)
CALL(xc__hypercall_buffer_alloc_pages, NOTHING)
CALL(xc_add_mmu_update, MINUS_ONE)
CALL(xc_alloc_mmu_updates, NOTHING)
CALL(xc_clear_domain_pages, MINUS_ONE)
CALL(xc_domain_add_to_physmap, MINUS_ONE)
CALL(xc_domain_cacheflush, MINUS_ONE)
CALL(xc_domain_get_guest_width, MINUS_ONE)
CALL(xc_domain_getinfo, MINUS_ONE)
CALL(xc_domain_getinfo_single, MINUS_ONE)
CALL(xc_domain_hvm_setcontext, MINUS_ONE)
CALL(xc_domain_memory_exchange_pages, MINUS_ONE)
CALL(xc_domain_nr_gpfns, MINUS_ONE)
CALL(xc_domain_populate_physmap, MINUS_ONE)
CALL(xc_domain_populate_physmap_exact, MINUS_ONE)
CALL(xc_domain_subscribe_for_suspend, MINUS_ONE)
CALL(xc_domctl, MINUS_ONE)
CALL(xc_flush_mmu_updates, MINUS_ONE)
CALL(xc_get_pfn_type_batch, MINUS_ONE)
CALL(xc_gnttab_map_table_v1, NOTHING)
CALL(xc_gnttab_map_table_v2, NOTHING)
CALL(xc_gnttab_op, MINUS_ONE)
CALL(xc_logdirty_control, MINUS_ONE)
CALL(xc_machphys_mfn_list, MINUS_ONE)
CALL(xc_make_page_below_4G, NOTHING)
CALL(xc_map_foreign_pages, NOTHING)
CALL(xc_map_foreign_ranges, NOTHING)
CALL(xc_maximum_ram_page, MINUS_ONE)
CALL(xc_memory_op, MINUS_ONE)
CALL(xc_mmuext_op, MINUS_ONE)
CALL(xc_shadow_control, MINUS_ONE)
CALL(xc_sysctl, MINUS_ONE)
CALL(xc_vcpu_getcontext, MINUS_ONE)
CALL(xc_vcpu_setcontext, MINUS_ONE)

/*
 * xenstored. dombuild speaks its protocol (xs_wire.h), many requests to a piece: each is counted. In the place of one that
 * shall fail xenstored gets one that it does not know, and in its answer to that stands another errno.
 */
#define MOST_FAILING 16

static int store = -1; /* the connection */
static struct {
    uint32_t request;
    int with;
} failing[MOST_FAILING];
static int failing_count;

static const char *request_name(uint32_t type)
{
    switch (type) {
    case XS_READ: return "xs_read";
    case XS_WRITE: return "xs_write";
    case XS_MKDIR: return "xs_mkdir";
    case XS_RM: return "xs_rm";
    case XS_SET_PERMS: return "xs_set_permissions";
    case XS_DIRECTORY:
    case XS_DIRECTORY_PART: return "xs_directory";
    case XS_TRANSACTION_START: return "xs_transaction_start";
    case XS_TRANSACTION_END: return "xs_transaction_end";
    case XS_INTRODUCE: return "xs_introduce_domain";
    case XS_WATCH: return "xs_watch";
    default: give_up("a request to xenstored that this shim does not know"); return NULL;
    }
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))real_of("connect");
    if (!lines || address->sa_family != AF_UNIX || !memmem(address, length, "xenstored", strlen("xenstored")))
        return real(fd, address, length);
    int with = count("xs_open", __builtin_return_address(0));
    if (with) {
        errno = with;
        return -1;
    }
    int done = real(fd, address, length);
    if (!done)
        store = fd;
    return done;
}

static ssize_t real_write(int fd, const void *data, size_t size)
{
    return ((ssize_t (*)(int, const void *, size_t))real_of("write"))(fd, data, size);
}

static ssize_t real_read(int fd, void *data, size_t size)
{
    return ((ssize_t (*)(int, void *, size_t))real_of("read"))(fd, data, size);
}

static void exactly(ssize_t (*work)(int, void *, size_t), void *data, size_t size)
{
    while (size) {
        ssize_t done = work(store, data, size);
        if (done < 0 && errno == EAGAIN) { /* dombuild's connection does not block */
            poll(&(struct pollfd){.fd = store, .events = POLLIN}, 1, -1);
            continue;
        }
        if (done <= 0)
            give_up("xenstored is gone");
        data = (char *)data + done;
        size -= (size_t)done;
    }
}

/* A transaction that could not be committed is over all the same: nothing of it happens. */
static void abort_transaction(struct xsd_sockmsg end)
{
    char request[sizeof end + 2] = {0}, answer[XENSTORE_PAYLOAD_MAX];
    end.len = 2;
    memcpy(request, &end, sizeof end);
    request[sizeof end] = 'F';
    if (real_write(store, request, sizeof request) != (ssize_t)sizeof request)
        give_up("a transaction cannot be ended");
    do { /* what a watch tells may come before it */
        exactly(real_read, &end, sizeof end);
        if (end.len > sizeof answer)
            give_up("xenstored's answer is too long");
        exactly(real_read, answer, end.len);
    } while (end.type == XS_WATCH_EVENT);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (!lines || fd != store)
        return real_write(fd, data, size);
    static char changed[1 << 20];
    if (size > sizeof changed)
        give_up("more requests at once than this shim has room for");
    memcpy(changed, data, size);
    for (size_t at = 0; at < size;) {
        struct xsd_sockmsg message;
        if (size - at < sizeof message)
            give_up("half a request");
        memcpy(&message, changed + at, sizeof message);
        int with = count(request_name(message.type), __builtin_return_address(0));
        if (with && failing_count < MOST_FAILING) {
            failing[failing_count].request = message.req_id;
            failing[failing_count++].with = with;
            if (message.type == XS_TRANSACTION_END)
                abort_transaction(message);
            message.type = XS_INVALID;
            message.tx_id = 0;
            memcpy(changed + at, &message, sizeof message);
        }
        at += sizeof message + message.len;
    }
    for (size_t sent = 0; sent < size;) {
        ssize_t done = real_write(fd, changed + sent, size - sent);
        if (done < 0)
            return done;
        sent += (size_t)done;
    }
    return (ssize_t)size;
}

/* Answers come in pieces of any size. */
ssize_t read(int fd, void *data, size_t size)
{
    static union {
        struct xsd_sockmsg message;
        char bytes[sizeof(struct xsd_sockmsg)];
    } header;
    static size_t in_header, in_content;
    static const char *name; /* of the errno that the answer shall have */
    ssize_t done = real_read(fd, data, size);
    if (!lines || fd != store)
        return done;
    for (char *at = data, *end = at + (done > 0 ? done : 0); at < end; at++) {
        if (in_header < sizeof header) {
            header.bytes[in_header++] = *at;
            if (in_header < sizeof header)
                continue;
            name = NULL;
            for (int i = 0; i < failing_count; i++)
                if (header.message.type == XS_ERROR && failing[i].request == header.message.req_id)
                    name = strerrorname_np(failing[i].with);
            if (name && strlen(name) >= header.message.len)
                give_up("an errno that is longer than xenstored's answer");
            in_content = 0;
        } else {
            if (name)
                *at = in_content < strlen(name) ? name[in_content] : '\0';
            in_content++;
        }
        if (in_content == header.message.len)
            in_header = 0;
    }
    return done;
}

/* Whether it is one of the devices through which a program talks to Xen. */
static bool is_xens(int fd)
{
    char link[32], path[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    errno = before;
    return !strcmp(path, "/dev/xen/privcmd") || !strcmp(path, "/proc/xen/privcmd") || !strcmp(path, "/dev/xen/hypercall");
}

/* The name of a request by which dombuild makes a device of dom0's; NULL: it is another request. */
static const char *device_request(unsigned long request)
{
    switch (request) {
    case LOOP_CTL_GET_FREE: return "LOOP_CTL_GET_FREE";
    case LOOP_CONFIGURE: return "LOOP_CONFIGURE";
    case LOOP_GET_STATUS64: return "LOOP_GET_STATUS64";
    case SIOCGIFFLAGS: return "SIOCGIFFLAGS";
    case SIOCSIFFLAGS: return "SIOCSIFFLAGS";
    case SIOCSIFHWADDR: return "SIOCSIFHWADDR";
    case SIOCSIFNAME: return "SIOCSIFNAME";
    case SIOCGIFINDEX: return "SIOCGIFINDEX";
    case SIOCBRADDIF: return "SIOCBRADDIF";
    case TUNSETIFF: return "TUNSETIFF";
    default: return NULL;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    const char *name = is_xens(fd) ? "ioctl" : device_request(request);
    int with = name ? count(name, __builtin_return_address(0)) : 0;
    if (with) {
        errno = with;
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

void *mmap(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
    bool counts = lines && fd >= 0 && !(flags & MAP_ANONYMOUS) && is_xens(fd);
    int with = counts ? count("mmap", __builtin_return_address(0)) : 0;
    if (with) {
        errno = with;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, start, length, protection, flags, fd, offset);
}

void *mmap64(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap(start, length, protection, flags, fd, offset);
}
