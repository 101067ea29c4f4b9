//! Filters: containerd's small language over fields and labels.
//!
//! ```text
//! filter    := selector ("," selector)*            all of them must hold
//! selector  := path (operator value)?              without an operator: the field is present
//! path      := field ("." field)*
//! field     := quoted | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="                  ~= is a regular expression
//! value     := quoted | [^\s,]+
//! quoted    := a Go string literal: "…", or the same between | or / after ~=
//! ```
//!
//! Before a field, an operator and a value there may be white space.
//!
//! A record matches a list of filters when any one of them matches, or when the list is empty.
//! A field that is absent is empty to `!=` and `~=`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A record whose fields a filter can look at.
pub trait Fields {
    /// Returns the value of a field, `None` when it is absent.
    fn field(&self, path: &[&str]) -> Option<String>;
}

/// Tells whether a record matches any of the filters, or there are none.
pub fn any_matches(filters: &[Filter], record: &dyn Fields) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(record))
}

/// One filter: selectors that must all hold.
///
/// ```
/// use windlass_core::filter::{Fields, Filter};
/// use windlass_core::Labels;
///
/// struct Image;
/// impl Fields for Image {
///     fn field(&self, path: &[&str]) -> Option<String> {
///         match path {
///             ["name"] => Some("docker.io/library/redis:7".into()),
///             ["labels", key @ ..] => Labels::new().with("a.b", "c").field(key),
///             _ => None,
///         }
///     }
/// }
///
/// let filter: Filter = r#"name~=redis,labels."a.b"==c"#.parse().unwrap();
/// assert!(filter.matches(&Image));
/// assert!("name==".parse::<Filter>().is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    selectors: Vec<Selector>,
}

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(regex_lite::Regex),
}

impl Filter {
    /// Tells whether all selectors hold.
    pub fn matches(&self, record: &dyn Fields) -> bool {
        self.selectors.iter().all(|selector| selector.matches(record))
    }

    /// Tells whether a selector looks at that field, or at something below it.
    pub fn names(&self, field: &str) -> bool {
        self.selectors.iter().any(|selector| selector.path.first().is_some_and(|first| first == field))
    }

    /// Makes a filter that holds where both do.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let joint = if self.text.is_empty() || other.text.is_empty() { "" } else { "," };
        let selectors = self.selectors.iter().chain(&other.selectors).cloned().collect();
        Self { text: format!("{}{joint}{}", self.text, other.text), selectors }
    }

    /// Parses several filters.
    pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>> {
        texts.into_iter().map(str::parse).collect()
    }
}

impl Selector {
    fn matches(&self, record: &dyn Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = record.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(expected) => value.as_ref() == Some(expected),
            Test::NotEqual(expected) => value.unwrap_or_default() != *expected,
            Test::Matches(pattern) => pattern.is_match(&value.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, position: 0 };
        let mut selectors = Vec::new();
        while parser.peek().is_some() {
            selectors.push(parser.selector()?);
            match parser.peek() {
                None => break,
                Some(',') => parser.advance(),
                Some(other) => return Err(parser.error(&format!("expected ',' and found {other:?}"))),
            }
            if parser.peek().is_none() {
                return Err(parser.error("expected a selector after ','"));
            }
        }
        Ok(Self { text: text.to_owned(), selectors })
    }
}

/// A position in the text; every rule leaves it behind what it took.
struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) {
        self.position += self.peek().map_or(0, char::len_utf8);
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.advance();
        }
    }

    fn error(&self, problem: &str) -> Error {
        Error::invalid_argument(format!("filter {:?} at byte {}: {problem}", self.text, self.position))
            .hint("a filter looks like name==redis, labels.\"a.b\"~=re, or labels.gc")
    }

    fn selector(&mut self) -> Result<Selector> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.advance();
            path.push(self.field()?);
        }
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        self.skip_space();
        let operator = self.rest().get(..2).unwrap_or_default();
        let test = match operator {
            "==" => Test::Equal(self.operand(false)?),
            "!=" => Test::NotEqual(self.operand(false)?),
            "~=" => {
                let start = self.position + 2;
                let pattern = self.operand(true)?;
                Test::Matches(regex_lite::Regex::new(&pattern).map_err(|e| {
                    self.position = start;
                    self.error(&format!("{pattern:?} is not a regular expression: {e}"))
                })?)
            }
            _ => {
                let found = self.peek().map_or_else(|| "nothing more".to_owned(), |other| format!("{other:?}"));
                return Err(self.error(&format!("expected ==, != or ~= and found {found}")));
            }
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error("expected a field name"));
        }
        self.position += length;
        Ok(rest.get(..length).unwrap_or_default().to_owned())
    }

    fn operand(&mut self, pattern: bool) -> Result<String> {
        self.position += 2;
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(delimiter @ ('|' | '/')) if pattern => self.quoted(delimiter),
            _ => {
                let rest = self.rest();
                let length = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
                if length == 0 {
                    return Err(self.error("expected a value"));
                }
                self.position += length;
                Ok(rest.get(..length).unwrap_or_default().to_owned())
            }
        }
    }

    /// Reads a literal up to its closing delimiter, with the escapes of Go. Between `|` or `/` a backslash before anything
    /// else stays as it is, so that `\w` need not be written `\\w` in a regular expression.
    fn quoted(&mut self, delimiter: char) -> Result<String> {
        let start = self.position;
        self.advance();
        // Bytes, because `\xff` is one.
        let mut value = Vec::new();
        while let Some(c) = self.peek() {
            self.advance();
            if c == delimiter {
                return String::from_utf8(value).map_err(|_| {
                    self.position = start;
                    self.error("the literal is not UTF-8")
                });
            }
            if c == '\\' {
                self.escaped(delimiter, &mut value)?;
            } else {
                push(&mut value, c);
            }
        }
        self.position = start;
        Err(self.error("the literal is not closed"))
    }

    /// Reads what follows a backslash. The Go specification, "Rune literals".
    fn escaped(&mut self, delimiter: char, value: &mut Vec<u8>) -> Result<()> {
        let Some(c) = self.peek() else { return Ok(()) };
        let start = self.position;
        self.advance();
        match c {
            c if c == delimiter => push(value, c),
            '\\' => value.push(b'\\'),
            'a' => value.push(0x07),
            'b' => value.push(0x08),
            'f' => value.push(0x0c),
            'n' => value.push(b'\n'),
            'r' => value.push(b'\r'),
            't' => value.push(b'\t'),
            'v' => value.push(0x0b),
            '0'..='7' => {
                self.position = start;
                let byte = u8::try_from(self.number(3, 8)?);
                value.push(byte.map_err(|_| self.error("an octal escape is larger than a byte"))?);
            }
            'x' => {
                let byte = u8::try_from(self.number(2, 16)?);
                value.push(byte.map_err(|_| self.error("a hexadecimal escape is larger than a byte"))?);
            }
            'u' | 'U' => {
                let code = self.number(if c == 'u' { 4 } else { 8 }, 16)?;
                push(value, char::from_u32(code).ok_or_else(|| self.error("the escape is no character"))?);
            }
            other if delimiter == '"' => {
                self.position = start;
                return Err(self.error(&format!("unknown escape \\{other}")));
            }
            other => {
                value.push(b'\\');
                push(value, other);
            }
        }
        Ok(())
    }

    /// Reads a number of exactly that many digits.
    fn number(&mut self, digits: usize, radix: u32) -> Result<u32> {
        let text = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_digit(radix)));
        let number = text.and_then(|text| u32::from_str_radix(text, radix).ok());
        let number = number.ok_or_else(|| self.error(&format!("expected {digits} digits")))?;
        self.position += digits;
        Ok(number)
    }
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Labels;

    struct Record;

    impl Fields for Record {
        fn field(&self, path: &[&str]) -> Option<String> {
            match path {
                ["name"] => Some("redis".into()),
                ["labels", key @ ..] => Labels::new().with("a.b", "x y").with("plain", "1").field(key),
                _ => None,
            }
        }
    }

    fn matches(text: &str) -> bool {
        text.parse::<Filter>().unwrap().matches(&Record)
    }

    #[test]
    fn selectors_hold_or_do_not() {
        for text in [
            "",
            "name",
            "name==redis",
            "name!=nginx",
            "absent!=x",
            "name~=^re",
            "name~=|^r.dis$|",
            r#"labels."a.b"=="x y""#,
            "labels.a.b",
            "labels.plain==1,name==redis",
            // As containerd 2's clients ask for a plugin.
            "labels.plain==1, name==redis",
            " name == redis",
            "labels. plain",
            r"name~=/red\w+/",
            r"name~=|^red\\w+$|",
            r#"name=="\x72\145d\u0069s""#,
            r#"name~="^red\\w+$""#,
            "\tname ~=\n^re",
            "absent!=x",
            "name!=\"\"",
            "absent~=^$",
        ] {
            assert!(matches(text), "{text:?}");
        }
        for text in [
            "absent",
            "name==nginx",
            "name!=redis",
            "name~=^x",
            "name==redis,absent",
            "absent==x",
            "absent!=\"\"",
            "absent~=x",
            "absent==\"\"",
            "1_",
            "name==redis, _absent",
        ] {
            assert!(!matches(text), "{text:?}");
        }
    }

    #[test]
    fn syntax_errors_name_the_position() {
        for (text, position) in [
            ("==x", 0),
            ("name==", 6),
            ("name=redis", 4),
            ("name==redis,", 12),
            ("name==\"open", 6),
            ("name~=[", 6),
            ("name==a b", 7),
            ("name==a ", 7),
            ("name ,absent", 5),
            ("name==redis, ", 13),
            ("name== ", 7),
            ("labels.", 7),
            (r#"name=="\w""#, 8),
            (r#"name=="\xff""#, 6),
            (r#"name=="\x4""#, 9),
            (r#"name=="\400""#, 11),
            (r#"name=="\ud800""#, 13),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.to_string().contains(&format!("at byte {position}:")), "{text:?}: {error}");
        }
    }
}
