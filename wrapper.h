/*
 * The headers that xen-sys binds. Order matters: xenguest.h uses types of
 * xenctrl.h without including it.
 */
#define _GNU_SOURCE /* vasprintf */
#include <stdio.h>

#define XC_WANT_COMPAT_MAP_FOREIGN_API /* xc_map_foreign_range */
#include <xenctrl.h>
#include <xenguest.h>
#include <xentoollog.h>

#include <xen/arch-x86/cpufeatureset.h> /* the names of CPU features */
#include <xen/hvm/e820.h>
#include <xen/hvm/hvm_info_table.h>
#include <xen/hvm/params.h>
#include <xen/io/xs_wire.h>
