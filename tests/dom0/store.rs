//! xenstored, asked by dombuild and by Xen's own tools.

use dombuild::xen::{Store, XenError};
use nix::errno::Errno;

use super::Test;
use super::failures::dombuild_after;
use super::support::shell;

pub(crate) const TESTS: &[Test] = &[
    ("xenstore_lists_what_no_single_answer_holds", long_list),
    ("xenstore_answers_what_fits_into_no_buffer", many_at_once),
    ("xenstore_tells_which_change_of_a_transaction_failed", failed_change),
    ("xenstore_makes_each_change_of_a_batch", batch),
    ("xenstore_repeats_a_transaction_that_collides", collision),
    ("xenstore_is_reached_through_the_kernel_where_it_has_no_socket", through_the_kernel),
];

/// An answer has at most 4096 bytes.
fn long_list() {
    shell("xenstore-write $(seq 300 | sed 's|.*|/test/many/a-child-with-quite-a-long-name-& 1|')");
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    // xenstore-list takes no long answer of oxenstored.
    let theirs = sorted((1..=300).map(|number| format!("a-child-with-quite-a-long-name-{number}")).collect());
    let store = Store::open().expect("xenstored");
    assert_eq!(sorted(store.plain().children("/test/many").expect("listed")), theirs);
    let listed = store.transaction(|transaction| transaction.children("/test/many"));
    assert_eq!(sorted(listed.expect("listed")), theirs);
    shell("xenstore-rm /test");
}

/// The socket's buffers take some 200 KiB each way: neither side may wait for the other there.
fn many_at_once() {
    let store = Store::open().expect("xenstored");
    let paths: Vec<_> = (0..400).map(|number| format!("/test/{number}/value")).collect();
    let value = |path: &String| format!("{path:2000}");
    let written = store.transaction(|transaction| {
        paths.iter().try_for_each(|path| transaction.write(path, &value(path)))?;
        // After changes whose answers are still unread.
        transaction.read_all(&paths)
    });
    let expected: Vec<_> = paths.iter().map(|path| Some(value(path))).collect();
    assert_eq!(written.expect("written"), expected);
    assert_eq!(shell("xenstore-read /test/399/value").trim_end(), paths[399]);
    let mixed = ["/test/1/value", "/test/400/value", "/test/2/value"];
    let plain = store.plain();
    assert_eq!(plain.read_all(&mixed).expect("read"), [expected[1].clone(), None, expected[2].clone()]);
    let children = plain.children_of_all(&["/test/7", "/test/400", "/test"]).expect("listed");
    assert_eq!(children.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 400]);
    let refused = plain.read_all(&["/test/1/value", "/test/no path", "/test/2/value"]).expect_err("refused");
    assert_eq!((refused.errno, refused.arguments.as_str()), (Some(Errno::EINVAL), "/test/no path"));
    let long = format!("/test/{}", "x".repeat(5000));
    let refused = plain.read_all(&["/test/400/value", &long, "/test/2/value"]).expect_err("refused");
    assert_eq!(refused.errno, Some(Errno::E2BIG));
    assert_eq!(plain.read("/test/2/value").expect("the next answer is the next request's"), expected[2]);
    shell("xenstore-rm /test");
}

/// Changes go to xenstored together, but each has its own error; if one fails, none is made.
fn failed_change() {
    let store = Store::open().expect("xenstored");
    let long = "x".repeat(5000);
    for (path, value, errno) in [("/test/not a path", "", Errno::EINVAL), ("/test/long", long.as_str(), Errno::E2BIG)] {
        let outcome = store.transaction(|transaction| {
            transaction.write("/test/before", "1")?;
            transaction.write(path, value)?;
            transaction.write("/test/behind", "1")
        });
        let error = outcome.expect_err("refused");
        assert_eq!((error.call, error.errno), ("xs_write", Some(errno)), "{error}");
        assert!(error.arguments.starts_with(path), "{error}");
        assert_eq!(store.plain().children("/test").expect("listed"), [""; 0]);
    }
    let told = store.transaction(|transaction| {
        transaction.write("/test/ü", "1")?;
        // What comes behind it has its answer behind that one.
        transaction.read("/test/other")
    });
    assert_eq!(told.expect_err("refused").call, "xs_write");
    let swallowed = store.transaction(|transaction| {
        transaction.write("/test/ü", "1")?;
        transaction.write("/test/other", "1")?;
        Ok::<_, XenError>(transaction.read("/test/other").ok())
    });
    assert_eq!(swallowed.expect_err("nothing of it happens").call, "xs_write");
    assert_eq!(store.plain().children("/test").expect("listed"), [""; 0]);
    let done = store.transaction(|transaction| {
        transaction.remove("/test/nothing")?;
        transaction.write("/test/one", "1")?;
        Ok::<_, XenError>((transaction.read("/test/one")?, transaction.read("/test/nothing")?))
    });
    assert_eq!(done.expect("done"), (Some("1".to_owned()), None));
    assert_eq!(shell("xenstore-read /test/one").trim(), "1");
    shell("xenstore-rm /test");
}

/// Outside a transaction, each change happens by itself, and the first error is reported.
fn batch() {
    let store = Store::open().expect("xenstored");
    let outcome = store.batch(|nodes| {
        nodes.write("/test/before", "1")?;
        nodes.write("/test/not a path", "")?;
        nodes.write("/test/behind", "1")
    });
    let error: XenError = outcome.expect_err("refused");
    assert_eq!((error.call, error.errno), ("xs_write", Some(Errno::EINVAL)), "{error}");
    assert_eq!(store.plain().children("/test").expect("listed"), ["before", "behind"]);
    let swallowed = store.batch(|nodes| {
        nodes.remove("/test")?;
        nodes.write("/test/ü", "1")?;
        Ok::<_, XenError>(nodes.read("/test/other").ok())
    });
    assert_eq!(swallowed.expect_err("it failed").call, "xs_write");
    assert_eq!(store.plain().children("/test").expect("the removal happened"), [""; 0]);
    let refused = store.batch(|nodes| {
        nodes.write("/test/one", "1")?;
        Err::<(), XenError>(store.plain().read("/test/not a path").expect_err("refused"))
    });
    assert_eq!(refused.expect_err("the error of the work").call, "xs_read");
    assert_eq!(store.plain().read("/test/one").expect("read").as_deref(), Some("1"), "it was sent before");
    shell("xenstore-rm /test");
}

/// Another writes what a transaction has read: xenstored refuses its end, and it is done again.
fn collision() {
    let (store, other) = (Store::open().expect("xenstored"), Store::open().expect("xenstored"));
    other.plain().write("/test/number", "1").expect("written");
    let mut attempts = 0;
    let outcome = store.transaction(|transaction| {
        attempts += 1;
        let number = transaction.read("/test/number")?.expect("it is there");
        if attempts == 1 {
            other.plain().write("/test/number", "2")?;
        }
        transaction.write("/test/copy", &number)
    });
    let outcome: Result<(), XenError> = outcome;
    outcome.expect("the second attempt is alone");
    assert_eq!(attempts, 2);
    assert_eq!(shell("xenstore-read /test/copy").trim(), "2");
    shell("xenstore-rm /test");
}

/// As where xenstored is a domain of its own.
fn through_the_kernel() {
    let hidden = "mount -t tmpfs tmpfs /run/xenstored";
    for words in [&["create", "--name", "t", "--memory", "128", "--paused"][..], &["inspect", "t"], &["destroy", "t"]] {
        let ran = dombuild_after(hidden, words).success();
        assert!(words[0] != "inspect" || ran.json()["differences"] == serde_json::json!([]), "{ran:?}");
    }
}
