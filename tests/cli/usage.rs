//! Command lines that cannot be understood, and where `--json` may stand.

use super::run::{line, refused, run};

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    for (arguments, word) in [
        ("plan", "--memory"),
        ("plna", "plan"),
        ("plan --memory 256 more", "more"),
        ("plan --mem 256", "--memory"),
        ("plan --memory", "--memory"),
        ("plan --memory 256 --memory 512", "--memory"),
        ("plan --memory 256 --name web", "--name"),
        ("plan --memory 256 --domid 3", "--domid"),
        ("create --memory 256", "--name"),
        ("create --name web", "--memory"),
        ("create --name web --memory 256 --foreground --paused", "--paused"),
        ("create --name web --memory 256 --uuid zz", "--uuid"),
        ("create --name web --memory 256 --firmware rombios", "seabios or ovmf"),
        ("create --name web --memory 256 --firmware ovmf:", "path"),
        ("create --name web --memory 256 --wait-memory soon", "number of seconds"),
        ("create --name web --memory 256 --wait-memory 86401", "86400"),
        ("create --name web --memory 256 --autoballoon maybe", "--autoballoon"),
        ("create --name web --memory 256 --dom0-min much", "--dom0-min"),
        ("create --name web --memory 256 --dm-timeout=-1", "--dm-timeout"),
        ("create --name web --memory 256 --max-grant-frames 0", "--max-grant-frames"),
        ("create --name web --memory 256 --cpupool -1", "'-1'"),
        ("create --name web --memory 256 --domid 3", "--domid"),
        ("build --memory 256", "--domid"),
        ("build --domid 0 --memory 256", "--domid"),
        ("build --domid 32752 --memory 256", "--domid"),
        ("build --domid web --memory 256", "--domid"),
        ("build --domid 3 --memory 256 --store-port 1", "--console-port"),
        ("build --domid 3 --memory 256 --console-port 1", "--store-port"),
        ("build --domid 3 --memory 256 --store-port 0 --console-port 1", "--store-port"),
        ("build --domid 3 --memory 256 --device-model none", "--device-model"),
        ("destroy", "DOMID|NAME"),
        ("destroy web db", "db"),
        ("destroy --all", "--all"),
        ("attach disk web", "SPEC"),
        ("attach web /a,raw,xvda,w", "disk|vif"),
        ("attach nic web bridge=xenbr0", "'nic'"),
        ("attach vif web bridge=xenbr0 --timeout soon", "number of seconds"),
        ("attach vif web bridge=xenbr0 --timeout 1 --no-wait", "--no-wait"),
        ("attach vif web bridge=xenbr0 --force", "--force"),
        ("detach disk web", "DEVICE"),
        ("detach disk web xvda xvdb", "xvdb"),
        ("detach disk web xvda --timeout 1 --force", "--force"),
        ("list web", "--devices"),
        ("features --memory 256", "--memory"),
    ] {
        let error = refused(&arguments.split_whitespace().collect::<Vec<_>>(), 2, "usage");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(word), "{arguments}: {word:?} is missing: {message}");
        assert_eq!(error["stage"], "check-input", "{arguments}");
    }
}

#[test]
fn an_empty_word_is_not_a_domain_and_not_a_label() {
    refused(&["destroy", ""], 2, "usage");
    refused(&["create", "--name", "web", "--memory", "256", "--seclabel", ""], 2, "usage");
    refused(&["create", "--name", "web", "--memory", "256", "--kernel", ""], 2, "usage");
    refused(&["create", "--name", "web", "--memory", "256", "--device-model", ""], 2, "usage");
}

#[test]
fn words_that_are_not_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let broken = OsStr::from_bytes(b"\xff");
    refused(&[OsStr::new("plan"), OsStr::new("--memory"), broken], 2, "usage");
    refused(&[OsStr::new("destroy"), broken], 2, "usage");
    refused(&[broken], 2, "usage");
}

#[test]
fn without_a_verb_people_get_the_help_and_programs_an_error() {
    let nothing: [&str; 0] = [];
    let people = run(&nothing);
    assert_eq!((people.exit, people.stdout.as_str()), (2, ""));
    for word in ["Usage: dombuild", "features", "Exit codes:"] {
        assert!(people.stderr.contains(word), "{}", people.stderr);
    }
    let programs = line("--json");
    assert_eq!(programs.exit, 2);
    let message = programs.json()["error"]["message"].as_str().expect("text").to_owned();
    assert!(message.lines().count() < 8, "the whole help is no message: {message}");
}

#[test]
fn json_stands_before_or_after_the_verb() {
    for arguments in ["plan --memory 256", "features", "plan --memory 0", "destroy", "plan --memory"] {
        let (verb, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
        let before = line(&format!("--json {arguments}"));
        let between = line(&format!("{verb} --json {rest}"));
        let after = line(&format!("{arguments} --json"));
        // What clap shows of the usage repeats the flags that it saw; all else is the same.
        let codes = [&before, &between, &after].map(|ran| (ran.exit, ran.json()["error"]["code"].clone()));
        assert!(codes.iter().all(|code| *code == codes[0]), "{arguments}: {codes:?}");
        if before.exit != 2 {
            assert_eq!(before.stdout, between.stdout, "{arguments}");
            assert_eq!(before.stdout, after.stdout, "{arguments}");
        }
    }
}

#[test]
fn the_message_of_a_usage_error_is_no_prefix_and_no_colour() {
    let ran =
        super::run::Ran::of(super::run::command(&["plan", "--json", "--memory", "4GB"]).env("CLICOLOR_FORCE", "1"));
    assert_eq!(ran.exit, 2);
    let message = ran.json()["error"]["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("invalid value '4GB'"), "{message}");
    assert!(!message.contains('\x1b'), "{message:?}");
}

/// A value that needs an equals sign is not taken for another argument silently.
#[test]
fn a_number_behind_watch_gets_a_tip() {
    let ran = line("inspect web --watch 2");
    assert_eq!(ran.exit, 2);
    assert!(ran.stderr.contains("tip: to measure every 2 seconds, give --watch=2"), "{}", ran.stderr);
    let error = line("--json inspect web --watch 5").error();
    assert!(error["message"].as_str().is_some_and(|text| text.contains("--watch=5")), "{error}");
}
