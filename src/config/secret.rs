//! A value that must not be seen.

use std::fmt;

/// Prints as `****`. Whoever needs the value says so with [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Variables of the environment that hold secrets. Programs that we start do not get them.
pub const VARIABLES: [&str; 5] = [
    "CQL_PASSWORD",
    "MEDUSA_CQL_PASSWORD",
    "MEDUSA_NODETOOL_PASSWORD",
    "MEDUSA_SSTABLELOADER_TSPW",
    "MEDUSA_SSTABLELOADER_KSPW",
];

/// What stands in the place of a secret.
pub const MASK: &str = "****";

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "**** ****");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
