//! Plans an HVM guest and writes a drawing of its memory: `plan_to_svg 4GiB plan.svg`.

use std::env;
use std::error::Error;
use std::fs;

use dombuild::memory::{Plan, Request, size};
use dombuild::picture::svg::svg;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(memory), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plan_to_svg MEMORY FILE".into());
    };
    let plan = Plan::new(&Request::new(size::parse(&memory)?))?;
    fs::write(&file, svg(&plan))?;
    println!("{file}: {} pages after the build, at most {}", plan.owned_pages_built.get(), plan.max_pages.get());
    Ok(())
}
