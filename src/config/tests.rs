//! What tests of several tables share.

use std::fs;
use std::path::Path;

/// Makes sure that a page has this table between `<!-- NAME -->` and `<!-- /NAME -->`. With DOMBUILD_WRITE_DOCS in the
/// environment it writes the table there.
pub(crate) fn assert_page_has(page: &str, name: &str, table: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).expect("the page");
    let (before, rest) = text.split_once(&begin).expect("where the table begins");
    let (_, after) = rest.split_once(&end).expect("where it ends");
    let right = format!("{before}{begin}{table}{end}{after}");
    if std::env::var_os("DOMBUILD_WRITE_DOCS").is_some() {
        fs::write(&path, &right).expect("written");
    } else {
        assert_eq!(text, right, "DOMBUILD_WRITE_DOCS=1 cargo test writes it anew");
    }
}
