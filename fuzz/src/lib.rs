//! What the fuzz targets share.

use std::sync::OnceLock;

/// Whether this run is to find the target's planted bug.
pub fn planted() -> bool {
    static PLANTED: OnceLock<bool> = OnceLock::new();
    *PLANTED.get_or_init(|| std::env::var_os("CROSSLANE_PLANTED").is_some())
}
