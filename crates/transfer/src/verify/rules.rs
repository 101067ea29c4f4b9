//! The text of a policy: TOML, as `docs/verification.md` describes it. A key that nobody knows is an error.

use std::path::Path;

use windlass_core::settings::{Source, Table, Unknown, Value};
use windlass_core::{Digest, Error, Result, ResultExt as _};

use super::cosign::Key;
use super::pattern::Pattern;
use super::policy::{Action, Policy, Rule};

/// The largest policy that is read, in bytes.
pub const MAX_POLICY: usize = 1 << 20;

/// Gives the public key, in PEM, that a rule calls so.
pub type Keys<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>>;

/// The words for what becomes of an image.
const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

impl Policy {
    /// Reads a policy; `file` is what messages call it.
    ///
    /// # Errors
    /// `InvalidArgument` naming file, line and key; those of the keys.
    pub fn parse(text: &str, file: &str, keys: Keys<'_>) -> Result<Self> {
        if text.len() > MAX_POLICY {
            return Err(Error::invalid_argument(format!("{file}: a policy has at most {MAX_POLICY} bytes")));
        }
        let source = Source::new(Path::new(file), text.to_owned());
        let parsed = source.parse()?;
        let mut table = Table::root(&source, parsed.get_ref());
        let default = table.value("default").ok_or_else(|| {
            Error::invalid_argument(format!("{file}: there is no default"))
                .hint("say what becomes of images that no rule is about: default = \"deny\", or \"allow\"")
        })?;
        let default = default.word(&ACTIONS)?;
        let registries = table.value("registries").map(registries).transpose()?;
        let mut rules = Vec::new();
        if let Some(list) = table.value("rule") {
            for rule in list.list()? {
                rules.push(self::rule(rule, keys)?);
            }
        }
        known(table)?;
        Ok(Self { file: file.to_owned(), default, registries, rules })
    }
}

fn registries(list: Value<'_>) -> Result<Vec<Pattern>> {
    let hosts = filled(list, "leave it out when images may come from any registry")?;
    hosts.iter().map(|host| Ok(Pattern::new(&host.text()?.to_ascii_lowercase()))).collect()
}

/// Returns the items of a list that may not be empty.
fn filled<'d>(list: Value<'d>, hint: &str) -> Result<Vec<Value<'d>>> {
    if list.is_list() && list.is_empty() {
        return Err(list.wrong("is empty: nothing would be allowed").hint(hint));
    }
    list.list()
}

fn rule(rule: Value<'_>, keys: Keys<'_>) -> Result<Rule> {
    let place = rule.place();
    let missing = |key: &str, hint: &str| Error::invalid_argument(format!("{place}: rule has no {key}")).hint(hint);
    let mut table = rule.table()?;
    let name = table.value("name").ok_or_else(|| missing("name", "it is the pattern of names; ** is every name"))?;
    if name.is_empty() {
        return Err(name.wrong("is empty").hint("** is every name"));
    }
    let name = name.text()?;
    let action = table.value("action").ok_or_else(|| missing("action", "it is allow or deny"))?.word(&ACTIONS)?;
    let reason = table.value("reason").map(|reason| reason.text()).transpose()?;
    let mut conditions = [table.value("digests"), table.value("signed_by")];
    if let (Action::Deny, Some(condition)) = (action, conditions.iter().flatten().next()) {
        return Err(condition.wrong("belongs to a rule that denies").hint("it is for what a rule allows"));
    }
    let [digests, signed_by] = conditions.each_mut().map(Option::take);
    let digests = digests.map(self::digests).transpose()?;
    let keys = signed_by.map(|list| self::keys(list, keys)).transpose()?;
    known(table)?;
    Ok(Rule { pattern: Pattern::new(&name), name, action, reason, digests, keys })
}

fn digests(list: Value<'_>) -> Result<Vec<Digest>> {
    let parse = |digest: Value<'_>| {
        digest.text()?.parse().map_err(|error| digest.wrong(format_args!("has a wrong digest: {error}")))
    };
    filled(list, "leave it out when any digest is allowed")?.into_iter().map(parse).collect()
}

fn keys(list: Value<'_>, keys: Keys<'_>) -> Result<Vec<Key>> {
    let read = |key: Value<'_>| {
        let name = key.text()?;
        let read = keys(&name).and_then(|pem| Key::from_pem(&name, &pem));
        read.context(|| format!("{}: {}", key.place(), key.key()))
    };
    filled(list, "leave it out when no signature is required")?.into_iter().map(read).collect()
}

/// Refuses keys that nobody asked for.
fn known(table: Table<'_>) -> Result<()> {
    let Some(Unknown { place, key, nearest, known }) = table.rest().into_iter().next() else { return Ok(()) };
    let error = Error::invalid_argument(format!("{place}: nobody knows the key {key}"));
    Err(match nearest {
        Some(nearest) => error.hint(format!("did you mean {nearest}?")),
        None => error.hint(format!("known here are: {}", known.join(", "))),
    })
}
