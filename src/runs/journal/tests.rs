//! The journal's entries, and what becomes of them.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const UUID: Uuid = Uuid::from_u128(0x6d0d_1b3e_3f0e_4a55_9a3a_2b8f_6a8f_0f11);

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("runs");
    (folder, path)
}

fn files(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("readable");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Writes an entry as another process would.
fn another(directory: &Path, change: impl FnOnce(&mut RunRecord)) -> RunRecord {
    let mut run = RunRecord::of_this_process(RunVerb::Create, UUID, DomId::new(7)).expect("it lives");
    change(&mut run);
    write(directory, &run).expect("written");
    run
}

#[test]
fn a_run_is_recorded_until_it_ends() {
    let (_folder, path) = folder();
    let mut recorded = JournalEntry::begin_in(&path, RunVerb::Create, UUID, None).expect("recorded");
    assert_eq!(files(&path), [format!("{UUID}.{}.json", std::process::id())]);
    let file = recorded.run.path(&path);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
    recorded.set_domain(DomId::new(7).expect("a domid")).expect("written");
    recorded.reserve(Pages(5), true).expect("written");
    recorded.end().expect("removed");
    assert_eq!(files(&path), [""; 0]);
    recorded.resume();
    let read: RunRecord = serde_json::from_str(&fs::read_to_string(&file).expect("read")).expect("a run");
    assert_eq!(read, recorded.run);
    assert_eq!((read.domid().map(DomId::get), read.reserved()), (Some(7), Pages(5)));
    assert!(others_in(&path).expect("read").is_empty(), "this process's own");
    drop(recorded);
    assert_eq!(files(&path), [""; 0]);

    let mut recorded = JournalEntry::begin_in(&path, RunVerb::Destroy, UUID, None).expect("recorded");
    recorded.leave();
    drop(recorded);
    assert_eq!(files(&path).len(), 1, "what could not be removed stays recorded");
}

#[test]
fn a_save_records_its_file_until_that_is_complete() {
    let (_folder, path) = folder();
    let mut recorded = JournalEntry::begin_in(&path, RunVerb::Save, UUID, DomId::new(7)).expect("recorded");
    let read = |recorded: &JournalEntry| {
        let text = fs::read_to_string(recorded.run.path(&path)).expect("read");
        serde_json::from_str::<RunRecord>(&text).expect("a run")
    };
    recorded.set_file(Path::new("/srv/.web.7.partial")).expect("written");
    let run = read(&recorded);
    assert_eq!((run.file.as_deref(), run.saved), (Some(Path::new("/srv/.web.7.partial")), false));
    recorded.set_saved().expect("written");
    let run = read(&recorded);
    assert_eq!((run.verb, run.file, run.saved), (RunVerb::Save, None, true));
}

#[test]
fn what_cannot_be_removed_is_an_error_at_the_end() {
    let (_folder, path) = folder();
    let mut recorded = JournalEntry::begin_in(&path, RunVerb::Create, UUID, None).expect("recorded");
    fs::remove_file(recorded.run.path(&path)).expect("removed");
    assert!(recorded.end().is_err());
    recorded.leave();
}

#[test]
fn a_process_is_known_by_its_number_its_start_and_its_boot() {
    let (_folder, path) = folder();
    make_directory(&path).expect("made");
    let alive = |change: &dyn Fn(&mut RunRecord)| {
        let run = another(&path, change);
        let found = others_in(&path).expect("read").into_iter().find(|entry| entry.run == run);
        forget_in(&path, &run).expect("removed");
        found.map(|entry| entry.alive)
    };
    assert_eq!(alive(&|_| {}), None, "our own");
    assert_eq!(alive(&|run| run.process.start += 1), Some(false), "another process had the number before");
    assert_eq!(alive(&|run| run.process.boot = Uuid::nil()), Some(false), "another boot");
    let parent = i32::try_from(std::os::unix::process::parent_id()).expect("a pid");
    let start = procfs::start_time(parent).expect("it lives");
    assert_eq!(alive(&|run| (run.process.pid, run.process.start) = (parent, start)), Some(true));
    assert_eq!(alive(&|run| run.process.pid = i32::MAX), Some(false));
}

#[test]
fn a_guest_that_leaves_is_not_changed() {
    let (_folder, path) = folder();
    make_directory(&path).expect("made");
    let seven = DomId::new(7).expect("a domid");
    let parent = i32::try_from(std::os::unix::process::parent_id()).expect("a pid");
    let leaves = |verb, pid, domid| {
        let run = another(&path, |run| {
            (run.verb, run.domid) = (verb, Some(7));
            run.process.pid = pid;
            run.process.start = procfs::start_time(pid).unwrap_or(1);
        });
        let found = others_in(&path).expect("read").into_iter().find(|entry| entry.run == run).expect("it is there");
        forget_in(&path, &run).expect("removed");
        found.takes_away(DomainRef { domid, uuid: UUID })
    };
    assert!(leaves(RunVerb::Save, parent, seven) && leaves(RunVerb::Migrate, parent, seven));
    assert!(!leaves(RunVerb::Create, parent, seven), "a run in the foreground");
    assert!(!leaves(RunVerb::Migrate, i32::MAX, seven), "a dead run");
    assert!(!leaves(RunVerb::Migrate, parent, DomId::new(8).expect("a domid")), "another domain");
}

#[test]
fn what_is_no_record_is_left_alone() {
    let (_folder, path) = folder();
    assert!(others_in(&path).expect("there is none").is_empty());
    make_directory(&path).expect("made");
    fs::write(path.join("notes.json"), "{}").expect("written");
    fs::write(path.join("build.lock"), "").expect("written");
    let run = another(&path, |run| run.process.start += 1);
    fs::copy(run.path(&path), path.join("copy.json")).expect("copied");
    let found = others_in(&path).expect("read");
    assert_eq!(found, [FoundRun { run, alive: false }]);
}

#[test]
fn half_records_of_dead_processes_go() {
    let (_folder, path) = folder();
    make_directory(&path).expect("made");
    let living = format!(".{UUID}.{}.new", std::process::id());
    fs::write(path.join(format!(".{UUID}.{}.new", i32::MAX)), "{").expect("written");
    fs::write(path.join(&living), "{").expect("written");
    forget_unfinished_in(&path);
    assert_eq!(files(&path), [living]);
}

#[test]
fn the_directory_must_be_ours_alone() {
    let (folder, path) = folder();
    symlink(folder.path(), &path).expect("linked");
    assert!(make_directory(&path).is_err(), "a link");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "").expect("written");
    assert!(make_directory(&path).is_err(), "a file");
    fs::remove_file(&path).expect("removed");
    make_directory(&path).expect("made");
    make_directory(&path).expect("there already");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("set");
    assert!(make_directory(&path).is_err(), "everybody's");
}
