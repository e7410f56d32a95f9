//! The toolstacks whose figures a plan can use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The toolstack whose figures a plan uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// xenops of OpenXT: Xen's limit follows static max.
    #[default]
    Xenops,
    /// xenopsd of xapi: as xenops, with terms for vCPUs and the PV shim.
    Xapi,
    /// libxl (`xl`): Xen's limit follows the target, and only the footprint is rounded to MiB.
    Libxl,
}

/// The error for a word that names no [`Model`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a memory model: use xenops, xapi or libxl")]
pub struct ModelError(String);

impl Model {
    /// Every model.
    pub const ALL: [Self; 3] = [Self::Xenops, Self::Xapi, Self::Libxl];

    /// Its name on the command line, in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xenops => "xenops",
            Self::Xapi => "xapi",
            Self::Libxl => "libxl",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|model| model.name() == input).ok_or_else(|| ModelError(input.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_a_column_for_each_model() {
        for page in [include_str!("../../docs/memory.md"), include_str!("../../docs/interface.md")] {
            let header = page.lines().find(|line| line.starts_with("| | `")).expect("the table of models");
            let names: Vec<&str> = header.split('`').skip(1).step_by(2).collect();
            assert_eq!(names, Model::ALL.map(Model::name));
        }
    }
}
