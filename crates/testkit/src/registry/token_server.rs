//! A token server: it gives JSON Web Tokens that say who may do what, signed so that Debian's `docker-registry` believes them.
//!
//! distribution's documentation, "Token Authentication Specification", "OAuth2 Token Authentication" and "Token Authentication
//! Implementation"; the tokens: RFC 7519, signed with ES256: RFC 7518 section 3.4.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::access::{basic, pair};
use super::tls::Identity;

/// How long a token is good, in seconds, until [`TokenServer::tokens_live`] says otherwise.
const LIFE: u64 = 300;
/// How long a token is good at docker-registry after it says that it is not any more, in seconds.
const LEEWAY: u64 = 60;

/// A running token server. It stops when it is dropped.
#[derive(Debug)]
pub struct TokenServer {
    address: SocketAddr,
    identity: Arc<Identity>,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

/// A request for a token, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The method.
    pub method: String,
    /// Who asked; nobody in particular when it is empty.
    pub user: String,
    /// By what the server knew: nothing, `basic`, `password` or `refresh_token`.
    pub by: String,
    /// The scopes that were asked for.
    pub asked: Vec<String>,
    /// The scopes that were granted; none when the request was refused.
    pub granted: Vec<String>,
    /// The status of the answer.
    pub status: u16,
}

#[derive(Debug)]
struct State {
    life: u64,
    anonymous: bool,
    no_get: bool,
    requests: Vec<TokenRequest>,
    refresh: BTreeSet<String>,
    given: usize,
}

impl TokenServer {
    /// What the registry is called by its tokens.
    pub const SERVICE: &'static str = "windlass test registry";
    /// What the server is called by its tokens.
    pub const ISSUER: &'static str = "windlass test tokens";
    /// A user, with the password, who may read what is below `team/`.
    pub const READER: (&'static str, &'static str) = ("reader", "reading is free");
    /// A user, with the password, who may do everything.
    pub const WRITER: (&'static str, &'static str) = ("writer", "writing is not");

    /// Starts a server on a loopback port, without TLS. Anyone may read what is below `public/`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Arc::new(Identity::new(&["tokens.test"]));
        let state = State {
            life: LIFE,
            anonymous: true,
            no_get: false,
            requests: Vec::new(),
            refresh: BTreeSet::new(),
            given: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let server = tokio::spawn(accept(listener, identity.clone(), state.clone()));
        Self { address, identity, state, server }
    }

    /// Returns where tokens are given.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Returns the certificate of who signs the tokens, for a registry to trust.
    pub fn authority_pem(&self) -> String {
        self.identity.authority_pem()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns every request so far.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.state().requests.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// From now on gives tokens that are good for so many seconds, although it says that they are good for longer.
    pub fn tokens_live(&self, seconds: u64) {
        self.state().life = seconds;
    }

    /// From now on takes requests by `POST` alone.
    pub fn only_post(&self) {
        self.state().no_get = true;
    }

    /// Makes what gets tokens in place of the writer's password.
    pub fn refresh_token(&self) -> String {
        self.state().refresh_token()
    }

    /// From now on takes the passwords alone.
    pub fn forget_refresh_tokens(&self) {
        self.state().refresh.clear();
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener, identity: Arc<Identity>, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (identity, state) = (identity.clone(), state.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, identity.clone(), state.clone()));
            // A client that goes away is no concern of ours.
            let _gone = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    identity: Arc<Identity>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let form = if head.method == Method::POST {
        String::from_utf8(body.to_vec()).unwrap()
    } else {
        head.uri.query().unwrap_or_default().to_owned()
    };
    let header = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let (status, body) = state.lock().unwrap().answer(&head.method, &form, header.as_deref(), &identity);
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

impl State {
    fn answer(&mut self, method: &Method, form: &str, header: Option<&str>, identity: &Identity) -> (u16, Value) {
        let fields: Vec<(String, String)> = form.split('&').filter_map(pair).collect();
        let field = |name: &str| fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let scopes = fields.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' '));
        let asked: Vec<String> = scopes.map(str::to_owned).collect();
        let user = if method == Method::POST { self.by_form(field) } else { self.by_header(header) };
        let (status, granted, body) = match user {
            _ if method == Method::GET && self.no_get => (405, Vec::new(), json!({ "details": "by POST alone" })),
            _ if field("service") != Some(TokenServer::SERVICE) => (400, Vec::new(), json!({ "details": "for whom?" })),
            None => (401, Vec::new(), json!({ "details": "incorrect username or password" })),
            Some(user) => {
                let granted: Vec<(String, String, Vec<String>)> =
                    asked.iter().filter_map(|scope| grant(user, scope)).collect();
                let texts = granted.iter().map(|(kind, name, actions)| format!("{kind}:{name}:{}", actions.join(",")));
                let texts: Vec<String> = texts.collect();
                let offline = field("offline_token") == Some("true") || field("access_type") == Some("offline");
                let body = self.given(user, &granted, offline, method == Method::POST, identity);
                (200, texts, body)
            }
        };
        let user = user.unwrap_or_default().to_owned();
        let by = field("grant_type").or(header.map(|_| "basic")).unwrap_or_default().to_owned();
        self.requests.push(TokenRequest { method: method.to_string(), user, by, asked, granted, status });
        (status, body)
    }

    fn given(
        &mut self,
        user: &str,
        granted: &[(String, String, Vec<String>)],
        offline: bool,
        post: bool,
        identity: &Identity,
    ) -> Value {
        self.given += 1;
        let token = sign(identity, user, granted, self.life, self.given);
        let name = if post { "access_token" } else { "token" };
        let refresh = (offline && user == TokenServer::WRITER.0).then(|| self.refresh_token());
        match refresh {
            Some(refresh) => json!({ name: token, "expires_in": LIFE, "refresh_token": refresh }),
            None => json!({ name: token, "expires_in": LIFE }),
        }
    }

    fn refresh_token(&mut self) -> String {
        let token = format!("refresh-{}-of-the-writer", self.refresh.len());
        self.refresh.insert(token.clone());
        token
    }

    fn by_header(&self, header: Option<&str>) -> Option<&'static str> {
        let Some(header) = header else { return self.anonymous.then_some("") };
        let known = [TokenServer::READER, TokenServer::WRITER];
        known.into_iter().find(|(user, password)| header == basic(user, password)).map(|(user, _)| user)
    }

    fn by_form<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> Option<&'static str> {
        match field("grant_type") {
            Some("refresh_token") => self.refresh.contains(field("refresh_token")?).then_some(TokenServer::WRITER.0),
            Some("password") => self.by_header(Some(&basic(field("username")?, field("password")?))),
            _ => None,
        }
    }
}

/// Returns what of a scope a user may do.
fn grant(user: &str, scope: &str) -> Option<(String, String, Vec<String>)> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let reads = name.starts_with("public/") || (user == TokenServer::READER.0 && name.starts_with("team/"));
    let may = |action: &&str| user == TokenServer::WRITER.0 || (reads && *action == "pull");
    let actions: Vec<String> = actions.split(',').filter(may).map(str::to_owned).collect();
    (!actions.is_empty()).then(|| (kind.to_owned(), name.to_owned(), actions))
}

/// Makes a token: RFC 7515 section 7.1, with the certificate of its key in the header.
fn sign(
    identity: &Identity,
    user: &str,
    granted: &[(String, String, Vec<String>)],
    life: u64,
    number: usize,
) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let access: Vec<Value> =
        granted.iter().map(|(kind, name, actions)| json!({ "type": kind, "name": name, "actions": actions })).collect();
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(identity.certificate_der())] });
    let claims = json!({
        "iss": TokenServer::ISSUER, "sub": user, "aud": TokenServer::SERVICE,
        "exp": now + life - LEEWAY, "nbf": now - 600, "iat": now, "jti": number.to_string(), "access": access,
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &identity.key_der(), &random).unwrap();
    let signature = key.sign(&random, text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
