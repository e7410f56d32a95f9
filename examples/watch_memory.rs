//! Prints the pages that a domain owns and may own, once a second until it is gone: `watch_memory DOMID`.
//!
//! Run it as root in dom0.

use std::env;
use std::error::Error;
use std::thread;
use std::time::Duration;

use dombuild::domain::measure::measure;
use dombuild::xen::{DomId, Interface};

fn main() -> Result<(), Box<dyn Error>> {
    let number: u32 = env::args().nth(1).ok_or("usage: watch_memory DOMID")?.parse()?;
    let domid = DomId::new(number).ok_or("a domid is at most 32751")?;
    let xen = Interface::open()?;
    println!("{:>12} {:>12} {:>12}", "owned", "max", "PoD cache");
    while xen.domain(domid)?.is_some() {
        let memory = measure(&xen, domid)?;
        let [owned, max, cache] =
            [memory.owned_pages, memory.max_pages, memory.pod_cache_pages].map(|pages| pages.get());
        println!("{owned:>12} {max:>12} {cache:>12}");
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
