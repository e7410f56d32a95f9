/*
 * The floor of the benchmark: nothing but libxenguest's call sequence, in libxl's order (libxl__build_dom,
 * tools/libs/light/libxl_dom.c). It checks no more than return values, and has no word for xenstore.
 *
 *   floor KIND SIZE TARGET LIMIT POOL VCPUS KERNEL MODULE [DOMID [STORE CONSOLE]]
 *
 * SIZE and TARGET in MiB are what the guest sees and what it is given, LIMIT and POOL in KiB Xen's limit and the paging pool.
 * Without DOMID the domain is created, too, and its number printed; with STORE and CONSOLE it has its limits, pool, vCPUs
 * and these two event channels already. KIND is hvm, MODULE the firmware, or pvh, MODULE the ramdisk.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define XC_WANT_COMPAT_MAP_FOREIGN_API
#include <xenctrl.h>
#include <xenguest.h>
#include <xen/hvm/e820.h>
#include <xen/hvm/hvm_info_table.h>

/* libxl gives PVH's local APIC alone, and no guest the PIRQs since Xen 4.19. */
#define WITHOUT (XEN_X86_EMU_VPCI | (XEN_DOMCTL_INTERFACE_VERSION >= 0x17 ? XEN_X86_EMU_USE_PIRQ : 0))
#define GIB4 (1ULL << 32)

static int must(const char *call, int returned)
{
    if (returned < 0) {
        perror(call);
        exit(1);
    }
    return returned;
}

static void finish_hvm_info(xc_interface *xch, uint32_t domid, unsigned vcpus)
{
    char *page = xc_map_foreign_range(xch, domid, XC_PAGE_SIZE, PROT_READ | PROT_WRITE, HVM_INFO_PFN);
    must("xc_map_foreign_range", page ? 0 : -1);
    struct hvm_info_table *info = (void *)(page + HVM_INFO_OFFSET);
    info->apic_mode = 1;
    info->nr_vcpus = vcpus;
    memset(info->vcpu_online, 0, sizeof info->vcpu_online);
    for (unsigned i = 0; i < vcpus; i++)
        info->vcpu_online[i / 8] |= 1 << i % 8;
    info->checksum = 0;
    uint8_t sum = 0;
    for (unsigned i = 0; i < info->length; i++)
        sum += ((uint8_t *)info)[i];
    info->checksum = -sum;
    munmap(page, XC_PAGE_SIZE);
}

int main(int count, char **words)
{
    if (count < 9)
        return 2;
    bool hvm = !strcmp(words[1], "hvm");
    uint64_t size = strtoull(words[2], NULL, 10), target = strtoull(words[3], NULL, 10);
    uint64_t limit = strtoull(words[4], NULL, 10), pool = strtoull(words[5], NULL, 10) << 10;
    unsigned vcpus = atoi(words[6]);
    uint32_t domid = count > 9 ? atoi(words[9]) : 0;
    xc_interface *xch = xc_interface_open(NULL, NULL, 0);
    must("xc_interface_open", xch ? 0 : -1);
    if (!domid) {
        struct xen_domctl_createdomain config = {
            .flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap, .max_vcpus = vcpus, .max_evtchn_port = 1023,
            .max_grant_frames = -1, .max_maptrack_frames = -1, .grant_opts = XEN_DOMCTL_GRANT_version(1),
            .arch.emulation_flags = hvm ? XEN_X86_EMU_ALL & ~WITHOUT : XEN_X86_EMU_LAPIC,
        };
        must("xc_domain_create", xc_domain_create(xch, &domid, &config));
        printf("%u\n", domid);
    }
    bool limits = count < 12;
    if (limits) {
        must("xc_domain_max_vcpus", xc_domain_max_vcpus(xch, domid, vcpus));
        must("xc_domain_setmaxmem", xc_domain_setmaxmem(xch, domid, limit));
        must("xc_set_paging_mempool_size", xc_set_paging_mempool_size(xch, domid, pool));
    }
    struct xc_dom_image *dom = xc_dom_allocate(xch, hvm ? NULL : "console=hvc0", NULL);
    must("xc_dom_allocate", dom ? 0 : -1);
    dom->container_type = XC_DOM_HVM_CONTAINER;
    dom->xenstore_evtchn = limits ? must("store", xc_evtchn_alloc_unbound(xch, domid, 0)) : atoi(words[10]);
    dom->console_evtchn = limits ? must("console", xc_evtchn_alloc_unbound(xch, domid, 0)) : atoi(words[11]);
    dom->target_pages = target << 8;
    dom->mmio_size = hvm ? 256 << 20 : 64 << 20;
    dom->mmio_start = GIB4 - dom->mmio_size;
    dom->lowmem_end = size << 20 < dom->mmio_start ? size << 20 : dom->mmio_start;
    dom->highmem_end = size << 20 > dom->mmio_start ? GIB4 + (size << 20) - dom->mmio_start : 0;
    dom->vga_hole_size = hvm ? 0x20 : 0;
    dom->device_model = hvm;
    dom->max_vcpus = vcpus;
    must("kernel", xc_dom_kernel_file(dom, words[7]));
    if (hvm) {
        size_t length = 0;
        dom->system_firmware_module.data = xc_dom_malloc_filemap(dom, words[8], &length, 1 << 26);
        must("firmware", dom->system_firmware_module.data ? 0 : -1);
        dom->system_firmware_module.length = length;
    } else {
        must("ramdisk", xc_dom_module_file(dom, words[8], NULL));
    }
    must("xc_dom_boot_xen_init", xc_dom_boot_xen_init(dom, xch, domid));
    must("xc_dom_parse_image", xc_dom_parse_image(dom));
    must("xc_dom_mem_init", xc_dom_mem_init(dom, size));
    must("xc_dom_boot_mem_init", xc_dom_boot_mem_init(dom));
    uint64_t start = hvm ? 1 << 20 : 0;
    struct e820entry map[] = {{start, dom->lowmem_end - start, E820_RAM}, {GIB4, dom->highmem_end - GIB4, E820_RAM}};
    dom->e820 = map;
    dom->e820_entries = dom->highmem_end ? 2 : 1;
    must("xc_domain_set_memory_map", xc_domain_set_memory_map(xch, domid, map, dom->e820_entries));
    must("xc_dom_build_image", xc_dom_build_image(dom));
    must("xc_dom_boot_image", xc_dom_boot_image(dom));
    must("xc_dom_gnttab_init", xc_dom_gnttab_init(dom));
    if (hvm)
        finish_hvm_info(xch, domid, vcpus);
    xc_dom_release(dom);
    xc_interface_close(xch);
    return 0;
}
