//! Where a list goes on: the header `Link`, RFC 8288; OCI distribution-spec, "Listing Tags", "Listing Referrers".

use http::HeaderMap;
use http::header::LINK;

use crate::quoted;

/// Returns where the next page of a list is; as it is written, which may be relative to where this one was.
pub(crate) fn next(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(next_of)
}

/// Finds the first link whose relation is `next`. What is malformed leads nowhere.
pub(crate) fn next_of(value: &str) -> Option<String> {
    let mut rest = value;
    loop {
        let (_, behind) = rest.split_once('<')?;
        let (target, behind) = behind.split_once('>')?;
        let (is_next, behind) = parameters(behind);
        if is_next {
            return Some(target.trim().to_owned()).filter(|target| !target.is_empty());
        }
        rest = behind;
    }
}

/// Reads the parameters of a link up to the comma behind it; tells whether its relation is `next`.
fn parameters(text: &str) -> (bool, &str) {
    let (mut is_next, mut has_relation) = (false, false);
    let mut rest = text.trim_start();
    while let Some(behind) = rest.strip_prefix(';') {
        let end = behind.find(['=', ';', ',', '"']).unwrap_or(behind.len());
        let (name, behind) = behind.split_at(end);
        let (value, behind) = match behind.strip_prefix('=') {
            Some(behind) => value(behind.trim_start()),
            None => (String::new(), behind),
        };
        // Of several relations of one name the first counts: RFC 8288 section 3.3.
        if name.trim().eq_ignore_ascii_case("rel") && !has_relation {
            has_relation = true;
            is_next = value.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        rest = behind.trim_start();
    }
    (is_next, rest)
}

/// Reads a token or a quoted string.
fn value(text: &str) -> (String, &str) {
    quoted::string(text).unwrap_or_else(|| {
        let (value, behind) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
        (value.trim().to_owned(), behind)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        for (value, expected) in [
            (r#"</v2/a/tags/list?last=b&n=1>; rel="next""#, Some("/v2/a/tags/list?last=b&n=1")),
            ("<https://x.test/y>;rel=next", Some("https://x.test/y")),
            (r#"</p>; rel="prev", </n>; rel="next""#, Some("/n")),
            (r#"</n>; title="a, b; rel=\"prev\""; rel="first next""#, Some("/n")),
            (r#"</n> ; REL = "NEXT""#, Some("/n")),
            ("</p>; rel=prev; rel=next", None),
            ("</n>", None),
            ("<>; rel=next", None),
            ("</n; rel=next", None),
            ("/n; rel=next", None),
            ("", None),
            (r#"</n>; rel="next"#, Some("/n")),
        ] {
            assert_eq!(next_of(value).as_deref(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_there_ends(value in r#"[<>;,="\\ a-z]{0,60}"#) {
            let _ = next_of(&value);
        }
    }
}
