//! Logging in and out, where credentials come from, and that nobody prints them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};
use windlass_testkit::registry::{Access, Auth, DockerRegistry, Fake, Fault, Identity};

use crate::dist::{Dist, Run};
use crate::fixture;

const SECRET: &str = "hunter2-is-secret";

/// Runs a command line with variables of its environment, and something on standard input.
fn run_in(dist: &Dist, variables: &[(&str, &str)], line: &str, input: &str) -> Run {
    let mut command = dist.command(line.split(' '));
    command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// A registry with an image, `a/b:1`, that wants a password.
fn registry(dist: &Dist) -> (DockerRegistry, String) {
    let registry = DockerRegistry::start_with_password();
    registry.push_layout(format!("{}:1", fixture::directory(dist).display()), "a/b:1");
    let reference = format!("{}/a/b:1", registry.host());
    (registry, reference)
}

/// Runs a command line at a terminal, and answers what it asks there. Returns what came of it, with all that was to be seen on the
/// terminal as its standard error.
fn at_a_terminal(dist: &Dist, line: &str, answers: &[(&str, &str)]) -> Run {
    let (mut terminal, end) = Terminal::new();
    let child = begin(dist, line, &end);
    // A terminal that nobody has is at its end.
    drop(end);
    for (question, answer) in answers {
        terminal.wait_for(question);
        writeln!(terminal.file, "{answer}").unwrap();
    }
    while terminal.look() {}
    let output = child.wait_with_output().unwrap();
    Run { stderr: String::from_utf8(terminal.seen).unwrap(), ..Run::of(output) }
}

/// Starts a command line at an end of a terminal.
fn begin(dist: &Dist, line: &str, end: &OwnedFd) -> Child {
    let mut command = dist.command(line.split(' '));
    command.stdin(end.try_clone().unwrap()).stderr(end.try_clone().unwrap()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// A terminal, from the side of who sits at it, and what was to be seen on it.
struct Terminal {
    file: fs::File,
    seen: Vec<u8>,
}

impl Terminal {
    /// Makes a terminal, and the end that programs have.
    fn new() -> (Self, OwnedFd) {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let end = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (Self { file: terminal.into(), seen: Vec::new() }, end)
    }

    /// Looks at what comes next; nothing does when nobody has the terminal any more.
    fn look(&mut self) -> bool {
        let mut some = [0; 1024];
        let read = self.file.read(&mut some).unwrap_or(0);
        self.seen.extend_from_slice(&some[..read]);
        read > 0
    }

    fn wait_for(&mut self, question: &str) {
        while !String::from_utf8_lossy(&self.seen).ends_with(question) {
            assert!(self.look(), "{question:?} was not asked: {}", String::from_utf8_lossy(&self.seen));
        }
    }
}

#[test]
fn an_interrupt_at_the_prompt_gives_the_terminal_back_as_it_was() {
    let dist = Dist::new();
    let (mut terminal, end) = Terminal::new();
    let echoes = || tcgetattr(&end).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(echoes());
    let mut child = begin(&dist, "login -u user a.test", &end);
    terminal.wait_for("Password of user: ");
    assert!(!echoes());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(echoes());
}

#[test]
fn a_password_is_asked_for_on_the_terminal_and_is_not_to_be_seen_there() {
    let dist = Dist::new();
    let (registry, reference) = registry(&dist);
    let (host, (user, password)) = (registry.host(), registry.credentials().unwrap());
    let asks = [format!("User name at {host}: "), format!("Password of {user}: ")];

    let wrong = at_a_terminal(&dist, &format!("login {host}"), &[(&asks[0], user), ("Password: ", SECRET)]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("refuses the credentials"), "{wrong:?}");
    assert!(!wrong.stderr.contains(SECRET) && !dist.path(".docker").exists(), "{wrong:?}");

    let right = at_a_terminal(&dist, &format!("login {host}"), &[(&asks[0], user), ("Password: ", password)]);
    assert_eq!(right.code, Some(0), "{right:?}");
    assert!(right.stderr.starts_with(&format!("{}{user}\r\nPassword: \r\n", asks[0])), "{right:?}");
    assert!(!right.stderr.contains(password), "{right:?}");
    assert!(String::from_utf8_lossy(&right.stdout).starts_with(&format!("logged in to {host}, kept in ")), "{right:?}");
    dist.ok(&format!("fetch-object {reference}"));

    dist.ok(&format!("logout {host}"));
    let once = at_a_terminal(&dist, &format!("fetch-object -u {user} {reference}"), &[(&asks[1], password)]);
    assert_eq!((once.code, once.stderr.contains(password)), (Some(0), false), "{once:?}");
    assert_eq!(dist.run(&format!("fetch-object {reference}")).code, Some(1), "nothing of it is kept");
    let nothing = at_a_terminal(&dist, &format!("login {host}"), &[(&asks[0], user), ("Password: ", "")]);
    assert!(nothing.code == Some(1) && nothing.stderr.contains("is empty"), "{nothing:?}");
}

fn config(dist: &Dist) -> Value {
    serde_json::from_slice(&fs::read(dist.path(".docker/config.json")).unwrap()).unwrap()
}

/// A program that keeps what it is told in a file beside it, as a credential helper does.
fn helper(dist: &Dist, name: &str, script: &str) -> String {
    let path = dist.path(&format!("bin/docker-credential-{name}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", dist.path("bin").display())
}

const KEEPER: &str = r#"
file="$0.kept"
case "$1" in
  store) cat > "$file" ;;
  get) read -r server; if grep -qs "\"ServerURL\":\"$server\"" "$file"; then cat "$file"; else echo 'credentials not found in native keychain'; exit 1; fi ;;
  erase) rm -f "$file" ;;
esac"#;

#[test]
fn a_login_is_kept_used_and_forgotten() {
    let dist = Dist::new();
    let (registry, reference) = registry(&dist);
    let (host, (user, password)) = (registry.host(), registry.credentials().unwrap());
    let anonymous = dist.run(&format!("fetch {reference}"));
    assert!(
        anonymous.code == Some(1) && anonymous.stderr.contains(&format!("hint: `dist login {host}`")),
        "{anonymous:?}"
    );

    let wrong = run_in(&dist, &[], &format!("login -u {user} --password-stdin {host}"), SECRET);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("refuses the credentials"), "{wrong:?}");
    assert!(!dist.path(".docker").exists(), "nothing is kept that is refused");

    let right = run_in(&dist, &[], &format!("login --user {user} --password-stdin {host}"), &format!("{password}\n"));
    assert_eq!(right.code, Some(0), "{right:?}");
    assert!(right.stderr.contains("WARN") && right.stderr.contains("credential helper"), "{right:?}");
    assert!(String::from_utf8_lossy(&right.stdout).starts_with(&format!("logged in to {host}, kept in ")), "{right:?}");
    assert_eq!(fs::metadata(dist.path(".docker/config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    dist.ok(&format!("fetch {reference}"));

    assert_eq!(dist.json(&format!("logout {host}")), json!({ "registry": host, "forgotten": true }));
    assert_eq!(dist.ok(&format!("logout {host}")), format!("not logged in to {host}\n"));
    assert_eq!(config(&dist)["auths"], json!({}));
    assert_eq!(dist.run(&format!("fetch-object {reference}")).code, Some(1));
}

#[test]
fn a_helper_keeps_a_login_when_the_file_says_so() {
    let dist = Dist::new();
    let (registry, reference) = registry(&dist);
    let (host, (user, password)) = (registry.host(), registry.credentials().unwrap());
    let path = helper(&dist, "keeper", KEEPER);
    let variables = [("PATH", path.as_str())];
    fs::create_dir(dist.path(".docker")).unwrap();
    let before = json!({ "credHelpers": { host: "keeper" }, "detachKeys": "ctrl-x" });
    fs::write(dist.path(".docker/config.json"), before.to_string()).unwrap();

    let login = run_in(&dist, &variables, &format!("login -u {user} --password-stdin {host}"), password);
    assert_eq!(login.code, Some(0), "{login:?}");
    assert!(!login.stderr.contains("WARN"), "{login:?}");
    assert_eq!(config(&dist)["auths"], json!({ host: {} }));
    assert_eq!(config(&dist)["detachKeys"], "ctrl-x");
    assert!(!fs::read_to_string(dist.path(".docker/config.json")).unwrap().contains(password));
    let fetched = run_in(&dist, &variables, &format!("fetch {reference}"), "");
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    let logout = run_in(&dist, &variables, &format!("logout {host}"), "");
    assert_eq!(String::from_utf8_lossy(&logout.stdout), format!("logged out of {host}\n"), "{logout:?}");
    let refused = run_in(&dist, &variables, &format!("fetch-object {reference}"), "");
    assert!(refused.code == Some(1) && refused.stderr.contains("wants credentials"), "{refused:?}");
}

#[test]
fn a_helper_that_does_not_work_is_said_and_is_no_obstacle_where_nobody_asks() {
    let dist = Dist::new();
    let open = DockerRegistry::start();
    open.push_layout(format!("{}:1", fixture::directory(&dist).display()), "a/b:1");
    let (_registry, reference) = registry(&dist);
    fs::create_dir(dist.path(".docker")).unwrap();
    for (script, words) in [
        ("echo broken; exit 3", "broken"),
        ("echo not json", "is not what a helper answers"),
        ("exit 0", "is not what a helper answers"),
    ] {
        let path = helper(&dist, "broken", script);
        fs::write(dist.path(".docker/config.json"), r#"{"credsStore":"broken"}"#).unwrap();
        let variables = [("PATH", path.as_str())];
        let public = run_in(&dist, &variables, &format!("fetch-object {}/a/b:1", open.host()), "");
        assert!(public.code == Some(0) && public.stderr.is_empty(), "{public:?}");
        let refused = run_in(&dist, &variables, &format!("fetch-object {reference}"), "");
        assert!(refused.code == Some(1) && refused.stderr.contains(words), "{refused:?}");
        assert!(refused.stderr.contains("credential helper \"broken\""), "{refused:?}");
    }
    fs::write(dist.path(".docker/config.json"), r#"{"credsStore":"missing"}"#).unwrap();
    let missing = dist.run(&format!("fetch-object {reference}"));
    assert!(missing.stderr.contains("install docker-credential-missing"), "{missing:?}");
}

#[test]
fn sources_of_credentials_have_an_order() {
    let dist = Dist::new();
    let (registry, reference) = registry(&dist);
    let (host, (user, password)) = (registry.host(), registry.credentials().unwrap());
    let write = |name: &str, key: &str, password: &str| {
        let path = dist.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = json!({ "auths": { key: { "username": user, "password": password } } });
        fs::write(&path, file.to_string()).unwrap();
        path.display().to_string()
    };
    let works = |variables: &[(&str, &str)], more: &str| {
        let run = run_in(&dist, variables, &format!("fetch-object {reference}{more}"), password);
        assert!(!run.stderr.contains(SECRET) && !run.stderr.contains(password), "{run:?}");
        run.code == Some(0)
    };
    assert!(!works(&[], ""));
    assert!(works(&[], &format!(" -u {user} --password-stdin")));
    write(".config/containers/auth.json", &format!("{host}/a"), password);
    assert!(works(&[], ""), "podman's, for a part of the registry");
    let runtime = dist.path("run");
    write("run/containers/auth.json", host, SECRET);
    let runtime = runtime.display().to_string();
    assert!(!works(&[("XDG_RUNTIME_DIR", &runtime)], ""), "podman's of the session goes before");
    let right = write("docker/config.json", host, password);
    let docker = dist.path("docker").display().to_string();
    assert!(works(&[("XDG_RUNTIME_DIR", &runtime), ("DOCKER_CONFIG", &docker)], ""), "Docker's goes before");
    let wrong = write("wrong.json", host, SECRET);
    let only = [("DOCKER_CONFIG", docker.as_str()), ("REGISTRY_AUTH_FILE", wrong.as_str())];
    assert!(!works(&only, ""), "one that is named is the only one");
    assert!(works(&[("REGISTRY_AUTH_FILE", right.as_str())], ""));
    assert!(works(&only, &format!(" --user {user} --password-stdin")), "the command line goes before all");
}

#[test]
fn nothing_that_is_printed_has_a_secret_in_it_whatever_a_server_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (registry, mirror) = runtime.block_on(async { (Fake::start().await, Fake::start().await) });
    let dist = Dist::new();
    fixture::serve(&registry, "a/b", "1", &fixture::bundle());
    registry.require(Auth::Basic { username: "user".to_owned(), password: SECRET.to_owned() });
    let hosts = dist.path("hosts");
    fs::create_dir_all(hosts.join(registry.host())).unwrap();
    let text = format!("[host.\"{}\".header]\nx-token = \"{SECRET}\"\n", mirror.url());
    fs::write(hosts.join(registry.host()).join("hosts.toml"), text).unwrap();
    // "dXNlcjpodW50ZXIyLWlzLXNlY3JldA==" is the user and the password in base64.
    let encoded = "dXNlcjpodW50ZXIyLWlzLXNlY3JldA==";
    let proxy = format!("http://porter:{SECRET}@127.0.0.1:9");
    let variables = [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", proxy.as_str())];
    for fault in [
        None,
        Some(Fault::redirect_to(format!("{}/stolen", mirror.url()))),
        Some(Fault::redirect_to(format!("http://user:{SECRET}@x.test/"))),
        Some(Fault::status(500, "broken")),
        Some(Fault::Hangup),
        Some(Fault::Answer {
            status: 401,
            headers: vec![(
                "www-authenticate".to_owned(),
                format!("Bearer realm=\"{}/token\",service=\"s\"", mirror.url()),
            )],
            body: bytes::Bytes::new(),
        }),
    ] {
        registry.clear_faults();
        registry.forget_requests();
        mirror.forget_requests();
        if let Some(fault) = fault.clone() {
            registry.fault("/v2/", fault);
        }
        for format in ["table", "json"] {
            let line = format!(
                "--log-level trace --format {format} --progress json fetch --hosts-dir {} -u user:{SECRET} {}/a/b:1",
                hosts.display(),
                registry.host()
            );
            let run = run_in(&dist, &variables, &line, "");
            let printed = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
            assert!(printed.contains("TRACE") || printed.contains("trace"), "{printed}");
            assert!(
                !printed.contains(SECRET) && !printed.contains(encoded.trim_end_matches('=')),
                "{fault:?}: {printed}"
            );
        }
        let seen = mirror.requests();
        assert!(!seen.is_empty());
        for request in seen.iter().filter(|request| request.path != "/token") {
            assert_eq!(request.header("authorization"), None, "{fault:?}");
            assert!(request.path.starts_with("/v2/") || request.header("x-token").is_none(), "{fault:?}: {request:?}");
        }
    }
}

#[test]
fn authorities_of_the_environment_are_trusted() {
    let dist = Dist::new();
    let identity = Identity::new(&["localhost"]);
    let registry = DockerRegistry::start_with(Access { tls: Some(&identity), ..Access::default() });
    registry.push_layout(format!("{}:1", fixture::directory(&dist).display()), "a/b:1");
    fs::create_dir_all(dist.path("hosts/a.test")).unwrap();
    fs::write(dist.path("hosts/a.test/hosts.toml"), format!("server = \"https://localhost:{}\"\n", registry.port()))
        .unwrap();
    let hosts = dist.path("hosts").display().to_string();
    let (file, directory) = (dist.path("authority.pem"), dist.path("authorities"));
    fs::write(&file, identity.authority_pem()).unwrap();
    // As `openssl rehash` names it, which is not looked at.
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("0123abcd.0"), identity.authority_pem()).unwrap();
    let (file, directory) = (file.display().to_string(), directory.display().to_string());
    let fetch = |variable: &[(&str, &str)]| {
        let variables = [&[("DIST_HOSTS_DIR", hosts.as_str())], variable].concat();
        run_in(&dist, &variables, "fetch-object a.test/a/b:1", "")
    };
    let untrusted = fetch(&[]);
    assert!(untrusted.code == Some(1) && untrusted.stderr.contains("not trusted"), "{untrusted:?}");
    for variable in [("SSL_CERT_FILE", file.as_str()), ("SSL_CERT_DIR", directory.as_str())] {
        let trusted = fetch(&[variable]);
        assert_eq!(trusted.code, Some(0), "{variable:?}: {trusted:?}");
    }
}

#[test]
fn options_of_hosts_that_are_wrong_are_errors_of_their_own() {
    let dist = Dist::new();
    let missing = dist.run("fetch-object --hosts-dir /no/such/directory a.test/a/b:1");
    assert!(
        missing.code == Some(1) && missing.stderr.contains("/no/such/directory is not a directory of hosts"),
        "{missing:?}"
    );
    let two = run_in(&dist, &[], &format!("fetch-object -u u:{SECRET} --password-stdin a.test/a/b:1"), "x");
    assert!(two.code == Some(1) && two.stderr.contains("two passwords") && !two.stderr.contains(SECRET), "{two:?}");
    let nobody = dist.run("login -u u a.test");
    assert!(nobody.stderr.contains("--password-stdin"), "{nobody:?}");
    let proxy = run_in(&dist, &[("HTTPS_PROXY", &format!("ftp://u:{SECRET}@p"))], "fetch-object a.test/a/b:1", "");
    assert!(proxy.stderr.contains("variable HTTPS_PROXY is a proxy of another kind"), "{proxy:?}");
    assert!(!proxy.stderr.contains(SECRET), "{proxy:?}");
    fs::create_dir_all(dist.path("hosts/_default")).unwrap();
    fs::write(
        dist.path("hosts/_default/hosts.toml"),
        "sever = \"https://127.0.0.1:9\"\nserver = \"http://127.0.0.1:9\"\n",
    )
    .unwrap();
    let hosts = dist.path("hosts").display().to_string();
    let typo = run_in(&dist, &[("DIST_HOSTS_DIR", &hosts)], "fetch-object a.test/a/b:1", "");
    assert!(typo.stderr.contains("hosts.toml:1: nobody knows the key sever; did you mean server?"), "{typo:?}");
}
