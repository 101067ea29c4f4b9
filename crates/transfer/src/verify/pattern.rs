//! Patterns of names: `*` is anything without a slash, `**` anything at all; the rest is itself.

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Anything without a slash.
    Segment,
    /// Anything.
    Anything,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix('*') {
                rest = behind.trim_start_matches('*');
                parts.push(if rest.len() == behind.len() { Part::Segment } else { Part::Anything });
                continue;
            }
            let (literal, behind) = rest.split_at(rest.find('*').unwrap_or(rest.len()));
            parts.push(Part::Text(literal.to_owned()));
            rest = behind;
        }
        Self(parts)
    }

    /// Tells whether the whole name is of the pattern. The time is that of the product of both lengths, whatever they are.
    pub(super) fn matches(&self, name: &str) -> bool {
        // The places in the name, in bytes, at which what was looked at so far may end.
        let mut reached = vec![false; name.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for part in &self.0 {
            reached = part.step(name, &reached);
        }
        reached.last().copied().unwrap_or(false)
    }
}

impl Part {
    fn step(&self, name: &str, reached: &[bool]) -> Vec<bool> {
        let bytes = name.as_bytes();
        let mut next = vec![false; reached.len()];
        let mut open = false;
        for (at, from) in reached.iter().enumerate() {
            match self {
                Self::Text(text) => {
                    let fits = *from && bytes.get(at..).is_some_and(|rest| rest.starts_with(text.as_bytes()));
                    if let Some(end) = next.get_mut(at + text.len()).filter(|_| fits) {
                        *end = true;
                    }
                }
                Self::Segment | Self::Anything => {
                    let slash = at > 0 && bytes.get(at - 1) == Some(&b'/') && *self == Self::Segment;
                    open = *from || (open && !slash);
                    if let Some(end) = next.get_mut(at) {
                        *end = open;
                    }
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_slash_and_two_do_not() {
        let matches = |pattern: &str, name: &str| Pattern::new(pattern).matches(name);
        for (pattern, name) in [
            ("docker.io/library/*", "docker.io/library/redis:7"),
            ("docker.io/*/redis:*", "docker.io/library/redis:7"),
            ("**", "anything/at/all"),
            ("**", ""),
            ("*", ""),
            ("registry.test/**", "registry.test/a/b/c@sha256:00"),
            ("registry.test/**:1", "registry.test/a/b:1"),
            ("a*b*c", "aXbXbXc"),
            ("*.test/x", "a.b.test/x"),
            ("exact", "exact"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("docker.io/library/*", "docker.io/library/a/b"),
            ("docker.io/library/*", "docker.io/library"),
            ("*", "a/b"),
            ("exact", "exactly"),
            ("exact", "inexact"),
            ("a*b", "a/b"),
            ("", "x"),
            ("registry.test/**:1", "registry.test/a:10"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        let pattern = Pattern::new(&"*a".repeat(500));
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(pattern.matches(&"a".repeat(2000)));
    }
}
