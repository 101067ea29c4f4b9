//! Configuration: our own files, containerd's, and what is said about mistakes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_core::{Error, Kind};
use windlass_daemon::Config;
use windlass_daemon::config::{Loaded, ProxyKind, load, render};

/// A folder of configuration.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.with("config.toml", text)
    }

    fn with(self, name: &str, text: &str) -> Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn load(&self) -> Loaded {
        load(Some(&self.file()), Config::default()).unwrap()
    }

    fn error(&self) -> Error {
        load(Some(&self.file()), Config::default()).unwrap_err()
    }

    /// Returns the message and the hint of the error, with the name of the folder taken out.
    fn complaint(&self) -> String {
        let error = self.error();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        let folder = format!("{}/", self.0.path().display());
        format!("{error} | {}", error.hint_text().unwrap_or_default()).replace(&folder, "")
    }

    /// Returns the notes, with the name of the folder taken out.
    fn notes(&self) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        self.load().notes.iter().map(|note| note.replace(&folder, "")).collect()
    }
}

#[test]
fn the_default_parses_back_to_the_defaults_and_every_key_is_explained() {
    let text = render(&Config::default());
    assert_eq!(Folder::new(&text).load().config, Config::default());
    let keys = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()).count();
    let comments = text.lines().filter(|line| line.starts_with('#')).count();
    assert!(keys >= 20 && comments >= keys * 3 / 4, "{keys} keys, {comments} comments");
}

#[test]
fn what_is_set_is_written_and_read_again() {
    let text = r#"
        root = "/data/\"w\""
        disabled_plugins = ["io.containerd.snapshotter.v1.erofs"]
        [grpc]
        uid = 5
        gid = 0x10
        max_recv_message_size = 1024
        [ttrpc]
        address = "/run/t"
        [metrics]
        address = "[::1]:1338"
        [gc]
        pause_threshold = 0.5
        schedule_delay = "1m 5s"
        [content]
        sharing = "isolated"
        layers = "drop"
        [snapshots]
        default = "stargz"
        [transfer]
        max_concurrent_unpacks = 7
        [registry]
        foreign_urls = "refuse"
        [proxy_plugins."a.b"]
        type = "snapshot"
        address = "/run/s.sock"
        platforms = ["linux/amd64", "linux/arm/v7"]
        capabilities = ["rebase"]
        exports = { root = "/x", "enable.remote" = "true" }
    "#;
    let config = Folder::new(text).load().config;
    assert_eq!(config.root, Path::new("/data/\"w\""));
    assert_eq!((config.grpc.uid, config.grpc.gid, config.grpc.max_recv_message_size), (5, 16, 1024));
    assert_eq!(config.ttrpc_address(), Path::new("/run/t"));
    assert_eq!(config.gc.schedule_delay, Duration::from_secs(65));
    assert_eq!(config.snapshots.default.as_deref(), Some("stargz"));
    let plugin = &config.proxy_plugins["a.b"];
    assert_eq!((plugin.kind, plugin.platforms.len(), plugin.exports.len()), (ProxyKind::Snapshot, 2, 2));
    assert_eq!(Folder::new(&render(&config)).load().config, config);
}

#[test]
fn a_mistake_is_told_with_file_line_key_and_what_was_meant() {
    for (text, complaint) in [
        ("rot = \"/x\"", "config.toml:1: nobody knows the key rot | did you mean root?"),
        ("\n[grpc]\nadress = \"/x\"", "config.toml:3: nobody knows the key grpc.adress | did you mean grpc.address?"),
        ("[grcp]\n", "config.toml:1: nobody knows the key grcp | did you mean grpc?"),
        (
            "[gc]\nevery = \"1s\"",
            "config.toml:2: nobody knows the key gc.every | known here are: pause_threshold, \
          deletion_threshold, mutation_threshold, schedule_delay, startup_delay",
        ),
        ("[grpc]\nuid = \"root\"", "config.toml:2: grpc.uid is to be a number and is a string | "),
        ("[grpc]\nuid = -1", "config.toml:2: grpc.uid is -1, which is out of range | "),
        ("root = \"var\"", "config.toml:1: root is \"var\", which does not begin with / | "),
        ("grpc = 1", "config.toml:1: grpc is to be a table and is a number | "),
        ("[content]\nsharing = \"some\"", "config.toml:2: content.sharing is \"some\" | it is one of shared, isolated"),
        (
            "[gc]\nschedule_delay = \"soon\"",
            "config.toml:2: gc.schedule_delay is \"soon\", which is no length of time: \
          expected number at 0 | ",
        ),
        (
            "[transfer]\nmax_concurrent_downloads = 0",
            "config.toml:2: transfer.max_concurrent_downloads is 0 | with none at \
          once nothing would ever be done: it is 1 or more",
        ),
        (
            "[proxy_plugins.x]\ntype = \"snapshot\"",
            "config.toml:1: proxy_plugins.x has no address | the path of the socket \
          it answers on",
        ),
        (
            "[proxy_plugins.x]\ntype = \"snapshots\"\naddress = \"/x\"",
            "config.toml:2: proxy_plugins.x.type is \"snapshots\" | \
          it is one of snapshot, content, diff",
        ),
        (
            "version = 1",
            "config.toml:1: version is 1, and versions 2, 3 and 4 of containerd's configuration are read | \
          `containerd config migrate` writes a newer one; our own configuration has no version",
        ),
    ] {
        assert_eq!(Folder::new(text).complaint(), complaint);
    }
}

#[test]
fn numbers_are_not_served_to_others() {
    let complaint = Folder::new("[metrics]\naddress = \"0.0.0.0:1338\"").complaint();
    assert!(complaint.contains("metrics.address is 0.0.0.0:1338, which others can reach"), "{complaint}");
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let complaint = Folder::new("root = \"/x\"\nstate = = 1\n").complaint();
    assert!(complaint.starts_with("config.toml:2: "), "{complaint}");
    let complaint = Folder::new("root = 1\nroot = 2\n").complaint();
    assert!(complaint.starts_with("config.toml:2: "), "{complaint}");
}

#[test]
fn files_of_the_folder_go_before_the_file_in_the_order_of_their_names() {
    let folder = Folder::new("root = \"/a\"\ndisabled_plugins = [\"x.y\"]\n")
        .with("conf.d/20.toml", "root = \"/c\"\n")
        .with("conf.d/10.toml", "root = \"/b\"\nstate = \"/s\"\ndisabled_plugins = [\"x.z\"]\n")
        .with("conf.d/readme", "this is no TOML");
    let loaded = folder.load();
    assert_eq!((loaded.config.root.as_path(), loaded.config.state.as_path()), (Path::new("/c"), Path::new("/s")));
    assert_eq!(loaded.config.disabled_plugins.len(), 2, "lists of plugins add up");
    assert_eq!(loaded.files.len(), 3);
    let folder = folder.with("conf.d/30.toml", "rot = 1\n");
    assert!(folder.complaint().starts_with("conf.d/30.toml:1: "));
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let missing = tempfile::tempdir().unwrap().path().join("no.toml");
    let error = load(Some(&missing), Config::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("no.toml"), "{error}");
}

#[test]
fn containerds_versions_are_read_as_far_as_they_mean_something() {
    let second = Folder::new(
        r#"
        version = 2
        root = "/var/lib/containerd"
        oom_score = -999
        required_plugins = ["io.containerd.grpc.v1.cri"]
        [grpc]
        address = "/run/c.sock"
        max_recv_message_size = 0
        tcp_address = "0.0.0.0:1"
        [debug]
        level = "warning"
        [plugins."io.containerd.gc.v1.scheduler"]
        pause_threshold = 0.1
        startup_delay = "2s"
        [plugins."io.containerd.metadata.v1.bolt"]
        content_sharing_policy = "isolated"
        [plugins."io.containerd.grpc.v1.cri"]
        max_concurrent_downloads = 3
        [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "native"
        discard_unpacked_layers = true
        [plugins."io.containerd.grpc.v1.cri".registry]
        config_path = "/etc/containerd/certs.d:/etc/other"
        [plugins."io.containerd.snapshotter.v1.overlayfs"]
        root_path = "/fast"
        [plugins."io.containerd.gc.v1.schedular"]
        x = 1
        [plugin]
        "#,
    );
    let config = second.load().config;
    assert_eq!(config.root, Path::new("/var/lib/containerd"));
    assert_eq!(config.ttrpc_address(), Path::new("/run/c.sock.ttrpc"));
    assert_eq!(config.grpc.max_recv_message_size, Config::default().grpc.max_recv_message_size);
    assert_eq!(config.debug.level, "warn");
    assert_eq!((config.gc.pause_threshold, config.gc.startup_delay), (0.1, Duration::from_secs(2)));
    assert_eq!(config.content.sharing, windlass::Sharing::Isolated);
    assert_eq!(config.content.layers, windlass::transfer::Content::Drop);
    assert_eq!(config.transfer.max_concurrent_downloads, 3);
    assert_eq!(config.snapshots.default.as_deref(), Some("native"));
    assert_eq!(config.registry.hosts_dirs, [Path::new("/etc/containerd/certs.d"), Path::new("/etc/other")]);
    assert!(config.required_plugins.contains("io.containerd.grpc.v1.cri"));
    let notes = second.notes().join("\n");
    for note in [
        "config.toml:9: grpc.tcp_address means nothing here",
        "config.toml:4: oom_score means nothing here",
        "plugins.\"io.containerd.snapshotter.v1.overlayfs\".root_path is not taken over",
        "plugins.\"io.containerd.gc.v1.schedular\" is not known; did you mean io.containerd.gc.v1.scheduler?",
        "plugin is not known; did you mean plugins?",
    ] {
        assert!(notes.contains(note), "{note} is not in\n{notes}");
    }
}

#[test]
fn containerds_third_and_fourth_version_have_their_names_for_the_same() {
    let third = Folder::new(
        "version = 3\n[ttrpc]\naddress = '/run/t'\n[plugins.'io.containerd.cri.v1.images']\nmax_concurrent_downloads = 9\n\
         snapshotter = 'erofs'\n[plugins.'io.containerd.transfer.v1.local']\nmax_concurrent_unpacks = 4\n",
    );
    let config = third.load().config;
    assert_eq!(config.ttrpc_address(), Path::new("/run/t"));
    assert_eq!((config.transfer.max_concurrent_downloads, config.transfer.max_concurrent_unpacks), (9, Some(4)));
    assert_eq!(config.snapshots.default.as_deref(), Some("erofs"));
    assert_eq!(third.notes(), Vec::<String>::new());
    let fourth = Folder::new(
        "version = 4\n[plugins.'io.containerd.server.v1.grpc']\naddress = '/run/g'\nuid = 3\n\
         [plugins.'io.containerd.server.v1.metrics']\naddress = '127.0.0.1:1338'\n\
         [plugins.'io.containerd.server.v1.debug']\naddress = '/run/d'\n",
    );
    let config = fourth.load().config;
    assert_eq!((config.grpc.address.as_path(), config.grpc.uid), (Path::new("/run/g"), 3));
    assert_eq!(config.metrics.address, Some("127.0.0.1:1338".parse().unwrap()));
    assert_eq!(fourth.notes().len(), 1, "there is no debug socket");
}

#[test]
fn containerds_imports_are_read_and_may_go_in_a_circle() {
    let folder = Folder::new("version = 2\nroot = '/a'\nimports = ['more/*.toml', 'other.toml']\n")
        .with("more/1.toml", "version = 2\nroot = '/b'\n")
        .with("more/2.toml", "version = 2\nstate = '/s'\n")
        .with("other.toml", "version = 2\nimports = ['other.toml']\nroot = '/c'\n");
    let loaded = folder.load();
    assert_eq!((loaded.config.root.as_path(), loaded.config.state.as_path()), (Path::new("/c"), Path::new("/s")));
    assert_eq!(loaded.files.len(), 4);
}

#[test]
fn a_metrics_address_of_containerd_that_others_can_reach_is_not_taken_over() {
    let folder = Folder::new("version = 2\n[metrics]\naddress = '0.0.0.0:1338'\n");
    assert_eq!(folder.load().config.metrics.address, None);
    assert!(folder.notes()[0].contains("metrics.address is not taken over"), "{:?}", folder.notes());
}

/// The defaults of Debian's containerd, as the program itself prints them.
#[test]
fn debians_own_defaults_are_read_and_everything_in_them_is_known() {
    let printed = std::process::Command::new("containerd").args(["config", "default"]).output().unwrap();
    assert!(printed.status.success());
    let folder = Folder::new(&String::from_utf8(printed.stdout).unwrap());
    assert_eq!(folder.load().config.grpc.address, Path::new("/run/containerd/containerd.sock"));
    let unknown: Vec<_> = folder.notes().into_iter().filter(|note| note.contains("is not known")).collect();
    assert_eq!(unknown, Vec::<String>::new());
}
