//! The breakdown of a domain's memory as data for a drawing: blocks from the top down, and named sums.
//!
//! The order of the blocks is that of the drawings in xenops' `memory.ml` and Xen's `docs/misc/libxl_memory.txt`:
//! nearly every sum is a run of adjacent blocks. Other sums have no span and no bracket.

use crate::memory::breakdown::Limit;
use crate::memory::kind::Kind;
use crate::memory::plan::Plan;
use crate::memory::units::Kib;

/// A part of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The model's term.
    pub(super) name: &'static str,
    /// The size, never 0.
    pub(super) size: Kib,
    /// The meaning.
    pub(super) meaning: &'static str,
    /// The guest's relation to it.
    pub(super) part: Part,
}

/// The guest's relation to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Memory that the guest cannot use.
    Overhead,
    /// Memory that the guest owns: the one block that is drawn large.
    Held,
    /// Memory that the guest may balloon up to.
    Missing,
}

/// A named sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    /// The model's term.
    pub(super) name: &'static str,
    /// The size.
    pub(super) size: Kib,
    /// The meaning and the formula.
    pub(super) meaning: String,
    /// The first and the last block of the sum, if its blocks are adjacent.
    pub(super) span: Option<(usize, usize)>,
}

/// The blocks and sums of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stack {
    /// The blocks from the top down.
    pub(super) blocks: Vec<Block>,
    /// The sums in the order of their explanation.
    pub(super) sums: Vec<Sum>,
}

impl Stack {
    /// The blocks and sums of a plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let blocks: Vec<Block> = blocks(plan).into_iter().filter(|block| !block.size.is_zero()).collect();
        let sums = sums(plan, &blocks);
        Self { blocks, sums }
    }

    /// The sum with this name.
    pub(super) fn sum(&self, name: &str) -> Option<&Sum> {
        self.sums.iter().find(|sum| sum.name == name)
    }
}

const SHADOW: &str = "shadow";
const ROUNDING: &str = "rounding";
const VCPU_OVERHEAD: &str = "vcpu overhead";
const EXTRA_EXTERNAL: &str = "extra external";
const EXTRA_INTERNAL: &str = "extra internal";
const SHIM: &str = "shim";
pub(super) const VIDEO: &str = "video";
const GUEST: &str = "guest";
const BALLOON: &str = "balloon";

/// A size in at most 12 characters.
pub(super) fn short(size: Kib) -> String {
    let text = size.to_string();
    if text.len() <= 12 { text } else { format!("{}K", size.get()) }
}

/// The parts of the overhead.
const OVERHEAD: [&str; 6] = [SHADOW, ROUNDING, VCPU_OVERHEAD, EXTRA_EXTERNAL, EXTRA_INTERNAL, SHIM];
/// The most characters of a formula; a longer one is omitted.
const MAX_FORMULA_LENGTH: usize = 60;

fn blocks(plan: &Plan) -> [Block; 9] {
    let memory = &plan.memory;
    let shadow = if plan.paging_pool.is_zero() {
        "for the page tables of a migration; no pool is set now"
    } else {
        "the paging pool, in which Xen keeps the guest's page tables"
    };
    let internal = match plan.request.kind {
        Kind::Hvm => "room for pages that QEMU adds, such as option ROMs",
        Kind::Pvh | Kind::Pv => "room under Xen's limit for pages that come on top",
    };
    let balloon = match plan.request.kind {
        Kind::Pv => "memory that the guest has addresses for, but does not hold",
        Kind::Hvm | Kind::Pvh => "RAM that the guest sees but does not hold",
    };
    let block = |name, size, part, meaning| Block { name, size, meaning, part };
    [
        block(SHADOW, memory.shadow, Part::Overhead, shadow),
        block(ROUNDING, memory.rounding, Part::Overhead, "what makes the footprint a multiple of 2 MiB"),
        block(VCPU_OVERHEAD, memory.vcpu_overhead, Part::Overhead, "what Xen allocates for the vCPUs"),
        block(EXTRA_EXTERNAL, memory.extra_external, Part::Overhead, "what else Xen allocates on the guest's behalf"),
        block(EXTRA_INTERNAL, memory.extra_internal, Part::Overhead, internal),
        block(SHIM, memory.shim, Part::Overhead, "what Xen's PV shim needs before it hands on the rest"),
        block(VIDEO, memory.video, Part::Overhead, "the VGA card's memory, which QEMU adds"),
        block(GUEST, memory.guest, Part::Held, "the guest's own RAM"),
        block(BALLOON, memory.balloon, Part::Missing, balloon),
    ]
}

fn sums(plan: &Plan, blocks: &[Block]) -> Vec<Sum> {
    let memory = &plan.memory;
    // A formula without the terms that are 0, unless all are.
    let there = |name: &&str| blocks.iter().any(|block| block.name == *name);
    let joined = |names: &[&'static str]| names.iter().copied().filter(there).collect::<Vec<_>>().join(" + ");
    let plus = |name: &'static str| if there(&name) { format!(" + {name}") } else { String::new() };
    let less_video = if memory.video.is_zero() { "" } else { " − video" };
    let qemu = if plan.device_model { ", and QEMU's -m" } else { "" };
    let seen = if plan.request.kind == Kind::Pv { "has addresses for" } else { "sees" };
    let build_start = if memory.shim.is_zero() {
        format!("the RAM that it is given to begin with: target{less_video}")
    } else {
        "what it starts with: target + shim for that".to_owned()
    };

    let all_overhead = joined(&OVERHEAD);
    let overhead = if all_overhead.chars().count() <= MAX_FORMULA_LENGTH {
        all_overhead
    } else {
        "what it takes besides its target: all blocks above its own".to_owned()
    };
    let (limited, from): (_, &[&str]) = match plan.request.model.rules().limit {
        Limit::StaticMax => ("static max", &[EXTRA_INTERNAL, SHIM, VIDEO, GUEST, BALLOON]),
        Limit::Target => ("target", &[EXTRA_INTERNAL, SHIM, VIDEO, GUEST]),
    };
    let sum = |name, size, parts: &[&str], meaning| {
        let span = span(blocks, parts, size);
        Sum { name, size, meaning, span }
    };
    let to_footprint: Vec<&str> = OVERHEAD.iter().copied().chain([VIDEO, GUEST]).collect();
    vec![
        sum(
            "static max",
            memory.static_max,
            &[VIDEO, GUEST, BALLOON],
            format!("the most that it may ever have: {}", joined(&[GUEST, BALLOON, VIDEO])),
        ),
        sum("target", memory.target, &[VIDEO, GUEST], format!("what it runs with: {}", joined(&[GUEST, VIDEO]))),
        sum(
            "build max",
            memory.build_max,
            &[SHIM, GUEST, BALLOON],
            format!("the RAM that it {seen}{qemu}: static max{less_video}{}", plus(SHIM)),
        ),
        sum("build start", memory.build_start, &[SHIM, GUEST], build_start),
        sum(
            "xen max",
            memory.xen_max,
            from,
            format!("Xen's limit for it: {limited}{}{}", plus(EXTRA_INTERNAL), plus(SHIM)),
        ),
        sum("overhead", memory.overhead, &OVERHEAD, overhead),
        sum("footprint", memory.footprint, &to_footprint, "what the host must have free: target + overhead".to_owned()),
    ]
}

/// The first and the last of the named blocks, if they are adjacent and add up to `size`.
fn span(blocks: &[Block], names: &[&str], size: Kib) -> Option<(usize, usize)> {
    let named = |block: &Block| names.contains(&block.name);
    let first = blocks.iter().position(named)?;
    let last = blocks.iter().rposition(named)?;
    let run = blocks.get(first..=last)?;
    let total = run.iter().try_fold(Kib::ZERO, |sum, block| sum.checked_add(block.size));
    (run.iter().all(named) && total == Some(size)).then_some((first, last))
}
