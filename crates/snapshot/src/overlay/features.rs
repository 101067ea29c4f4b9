//! The mount options that this kernel's defaults make necessary.

use std::fs;
use std::io::ErrorKind;

use windlass_core::error::{Error, Result};

/// Defaults of the module that have to be off: `index` binds a layer to one mount at a time, `metacopy` and `redirect_dir`
/// leave references in a layer to what is below it, so that the layer alone does not say what changed. Kernel
/// documentation, `filesystems/overlayfs.rst`.
const OFF: [&str; 3] = ["index", "metacopy", "redirect_dir"];

/// Returns the options for every overlay of this snapshotter.
pub(crate) fn mount_options() -> Result<Vec<String>> {
    let mut defaults = Vec::new();
    for parameter in OFF {
        defaults.push((parameter, read(&format!("/sys/module/overlay/parameters/{parameter}"))?));
    }
    Ok(options(&defaults, &read("/proc/self/uid_map")?))
}

/// Reads a file; one that is missing says nothing, because the kernel has no such thing.
fn read(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| Error::io(format!("read {path}"), error)),
    }
}

/// Decides by the defaults of the module's parameters and the map of user ids. In a user namespace overlayfs may not use
/// `trusted.*` attributes and keeps its own in `user.*`.
fn options(defaults: &[(&str, String)], uid_map: &str) -> Vec<String> {
    let on = |value: &str| matches!(value.trim(), "Y" | "y" | "1");
    let mut options: Vec<String> =
        defaults.iter().filter(|(_, value)| on(value)).map(|(parameter, _)| format!("{parameter}=off")).collect();
    let map: Vec<&str> = uid_map.split_whitespace().collect();
    if !map.is_empty() && map != ["0", "0", "4294967295"] {
        options.push("userxattr".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_has_on_is_turned_off() {
        const HOST: &str = "         0          0 4294967295\n";
        let defaults = |index: &str, redirect: &str| {
            vec![("index", index.to_owned()), ("metacopy", String::new()), ("redirect_dir", redirect.to_owned())]
        };
        assert!(options(&defaults("N\n", "N\n"), HOST).is_empty());
        assert_eq!(options(&defaults("Y\n", "Y\n"), HOST), ["index=off", "redirect_dir=off"]);
        assert_eq!(options(&defaults("N\n", "N\n"), "0 1000 1\n"), ["userxattr"]);
    }
}
