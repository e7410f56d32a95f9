//! The rule of the house: a room depends only on rooms below it, and no modules use each other in a circle.
//!
//! The test reads the sources: every path that begins with `crate`, `super` or the name of a crate of the workspace.
//! Modules that only tests have do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// The rooms of the root crate, from top to bottom; then the crates.
const ROOMS: [&[&str]; 18] = [
    &["cli"],
    &["migration"],
    &["lifecycle"],
    &["devices"],
    &["qemu"],
    &["builder"],
    &["runs"],
    &["domain"],
    &["context"],
    &["observer", "cancel"],
    &["logging"],
    &["error"],
    &["stage"],
    &["config"],
    &["payload", "picture"],
    &["xen"],
    &["os"],
    &["memory"],
];

/// The crates of the workspace below the root crate, with their folders.
const CRATES: [(&str, &str); 3] =
    [("dombuild_xen", "src/xen"), ("dombuild_os", "src/os"), ("dombuild_memory", "src/memory")];

/// A module's path from its crate's root: the first part is the crate's name for the three crates, a room otherwise.
type Module = Vec<String>;

/// Every module with the paths that its code names.
struct House {
    uses: BTreeMap<Module, BTreeSet<Module>>,
}

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        collect(&root.join("src"), &mut files);
        let modules: Vec<(Module, PathBuf)> =
            files.into_iter().filter_map(|path| Some((module_of(path.strip_prefix(root).ok()?), path))).collect();
        let known: BTreeSet<Module> = modules.iter().map(|(module, _)| module.clone()).collect();
        let mut uses = BTreeMap::new();
        for (module, path) in modules {
            let text = fs::read_to_string(&path).expect("a source file");
            let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut named = Vec::new();
            paths(stream, &mut named);
            let found: BTreeSet<Module> = named
                .into_iter()
                .filter_map(|path| resolve(&module, path, &known))
                .filter(|to| *to != module)
                .collect();
            uses.insert(module, found);
        }
        Self { uses }
    }

    /// Which modules name which, each as `from -> to`.
    fn arrows(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.uses.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && !is_for_tests(&entry) {
            files.push(entry);
        }
    }
}

/// Files of tests, build scripts, and the roots that only show.
fn is_for_tests(path: &Path) -> bool {
    ["tests.rs", "build.rs", "main.rs", "agreement.rs"].iter().any(|name| path.ends_with(name))
}

/// `src/builder/pre.rs` is `builder::pre`, `src/xen/store.rs` is `xen::store`, `src/lib.rs` has no parts.
fn module_of(path: &Path) -> Module {
    let parts = path.with_extension("");
    let mut module: Module = parts.iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// Adds every path in the code, with the groups of `use` written out. Modules named `tests` are left out.
fn paths(stream: TokenStream, found: &mut Vec<Module>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        match tree {
            TokenTree::Ident(word) if *word == "mod" && is_word(trees.get(at + 1), "tests") => at += 3,
            TokenTree::Ident(_) if !is_colon(at.checked_sub(1).and_then(|before| trees.get(before))) => {
                at = path_from(&trees, at, &[], found);
            }
            TokenTree::Group(group) => {
                paths(group.stream(), found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Reads the path that begins at `at`, after `prefix`, and returns where the code goes on.
fn path_from(trees: &[TokenTree], mut at: usize, prefix: &[String], found: &mut Vec<Module>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match trees.get(at) {
            Some(TokenTree::Ident(word)) => {
                path.push(word.to_string());
                at += 1;
            }
            Some(TokenTree::Group(group)) if path.len() > prefix.len() => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut inside = 0;
                while inside < inner.len() {
                    inside = path_from(&inner, inside, &path, found).max(inside + 1);
                }
                return at + 1;
            }
            _ => break,
        }
        if !(is_colon(trees.get(at)) && is_colon(trees.get(at + 1))) {
            break;
        }
        at += 2;
    }
    if path.len() > 1 {
        found.push(path);
    }
    at
}

fn is_word(tree: Option<&TokenTree>, word: &str) -> bool {
    matches!(tree, Some(TokenTree::Ident(ident)) if *ident == word)
}

fn is_colon(tree: Option<&TokenTree>) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// The module that a path in `module` names: the longest part of it that is one.
fn resolve(module: &Module, path: Module, known: &BTreeSet<Module>) -> Option<Module> {
    let home = module.first().filter(|first| CRATES.iter().any(|(_, folder)| folder.ends_with(first.as_str())));
    let crate_root: Module = home.into_iter().cloned().collect();
    let (first, rest) = path.split_first()?;
    let mut full = match first.as_str() {
        "crate" => crate_root,
        "super" => {
            let mut base = module.clone();
            base.pop();
            base
        }
        "self" => module.clone(),
        name => {
            let (_, folder) = CRATES.iter().find(|(known, _)| *known == name)?;
            vec![folder.trim_start_matches("src/").to_owned()]
        }
    };
    for part in rest {
        if part == "super" {
            full.pop();
        } else if part != "self" {
            full.push(part.clone());
        }
    }
    while !full.is_empty() && !known.contains(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}

/// How far down a room is; the root's own files have no place.
fn depth(module: &Module) -> Option<usize> {
    let room = module.first()?;
    Some(ROOMS.iter().position(|rooms| rooms.contains(&room.as_str())).unwrap_or_else(|| panic!("no room {room}")))
}

#[test]
fn no_arrow_runs_up() {
    let house = House::read();
    let mut arrows = 0;
    let mut up = Vec::new();
    for (from, to) in house.arrows() {
        let (Some(above), Some(below)) = (depth(from), depth(to)) else { continue };
        arrows += 1;
        if above >= below && from.first() != to.first() {
            up.push(format!("{} -> {}", from.join("::"), to.join("::")));
        }
    }
    assert!(up.is_empty(), "what is used is not below:\n{}", up.join("\n"));
    assert!(arrows > 500, "only {arrows} paths were found");
}

/// Siblings, each with all that is below it, do not use each other in a circle. A module and its parent may.
#[test]
fn no_circle() {
    let house = House::read();
    let mut siblings: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, to) in house.arrows() {
        let shared = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        if let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) {
            let folder = siblings.entry(from[..shared].to_vec()).or_default();
            folder.entry(one.clone()).or_default().insert(other.clone());
        }
    }
    let circles: Vec<String> = siblings
        .iter()
        .flat_map(|(folder, arrows)| {
            let circles = arrows.keys().filter_map(|start| circle_from(start, arrows));
            circles.map(|circle| format!("{}: {}", folder.join("::"), circle.join(" -> ")))
        })
        .collect();
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}

/// A way from `start` back to it.
fn circle_from(start: &String, arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in arrows.get(way.last()?).into_iter().flatten() {
            let further = [way.clone(), vec![next.clone()]].concat();
            if next == start {
                return Some(further);
            }
            if seen.insert(next.clone()) {
                ways.push(further);
            }
        }
    }
    None
}
