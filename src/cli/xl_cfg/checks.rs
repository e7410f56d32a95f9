//! How a file is checked.

use super::xl_conf::XlConf;

/// What a file is checked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aim {
    /// To say what becomes of it: what `create` cannot carry out is a warning.
    #[default]
    Check,
    /// For libxl's form of it.
    LibxlJson,
    /// To create the guest: what `create` cannot carry out is an error.
    Create,
}

/// How a file is checked.
#[derive(Debug, Default)]
pub struct Checks {
    /// An unknown key is an error.
    pub strict: bool,
    /// What it is checked for.
    pub aim: Aim,
    /// What the host adds.
    pub xl_conf: XlConf,
}
