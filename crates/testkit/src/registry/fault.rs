//! The ways in which the fake goes wrong.

use std::time::Duration;

use bytes::Bytes;

/// One way to go wrong. Several for one path add up, the later ones on top.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Answers this, whatever was asked.
    Answer {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Answers `HEAD` with 405.
    NoHead,
    /// Sets a header, over the right one: a wrong `docker-content-digest`, a `content-encoding`, a `content-type`.
    Header(String, String),
    /// Leaves a header out.
    WithoutHeader(String),
    /// Answers a request for a range with everything.
    IgnoreRange,
    /// Answers a request for a range with a part that begins so many bytes later, and says so.
    ShiftRange(u64),
    /// Sends other bytes.
    Bytes(Bytes),
    /// Flips the bits of one byte.
    CorruptByte(usize),
    /// Sends the body without announcing its size.
    Unannounced,
    /// Closes the connection after so many bytes of the body.
    TruncateAfter(usize),
    /// Resets the connection after so many bytes of the body.
    ResetAfter(usize),
    /// Sends so many bytes of the body, and nothing more ever.
    StallAfter(usize),
    /// Sends the body without announcing its size, and blanks behind it without end.
    Endless,
    /// Sends the body in pieces, with a pause between them.
    Trickle {
        /// The size of a piece.
        piece: usize,
        /// The pause.
        pause: Duration,
    },
    /// Never answers.
    Silence,
    /// Closes the connection instead of answering.
    Hangup,
    /// Takes so many bytes of what is uploaded, keeps them, and resets the connection.
    CutUploadAfter(usize),
    /// Answers a status without reading what is sent.
    Unread(u16),
}

impl Fault {
    /// Answers with a status and a text.
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// Answers with a status and an error in a registry's form.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self::Answer { status, headers, body: body.to_string().into() }
    }

    /// Redirects to a URL.
    pub fn redirect_to(url: impl Into<String>) -> Self {
        Self::Answer { status: 307, headers: vec![("location".to_owned(), url.into())], body: Bytes::new() }
    }

    /// Sets a header.
    pub fn header(name: &str, value: impl Into<String>) -> Self {
        Self::Header(name.to_owned(), value.into())
    }
}

/// A fault, where it happens, and how often.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) when: When,
    pub(super) fault: Fault,
    pub(super) times: Option<usize>,
}

/// Which requests a fault happens to.
#[derive(Debug, Default)]
pub(super) struct When {
    pub(super) path: String,
    /// Only those with that method.
    pub(super) method: Option<String>,
    /// Only those for a part.
    pub(super) ranged: bool,
    /// How many of them it does not happen to at first.
    pub(super) skip: usize,
}

/// What a request asks for.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Whether it is for a part.
    pub(super) ranged: bool,
}

impl When {
    fn is_met(&self, asked: &Asked<'_>) -> bool {
        asked.path.starts_with(&self.path)
            && self.method.as_ref().is_none_or(|method| method == asked.method)
            && (asked.ranged || !self.ranged)
    }
}

/// Takes the faults that happen to a request.
pub(super) fn take(scripted: &mut Vec<Scripted>, asked: &Asked<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    scripted.retain_mut(|script| {
        if !script.when.is_met(asked) {
            return true;
        }
        if let Some(left) = script.when.skip.checked_sub(1) {
            script.when.skip = left;
            return true;
        }
        match &mut script.times {
            Some(0) => return false,
            Some(times) => *times -= 1,
            None => {}
        }
        faults.push(script.fault.clone());
        true
    });
    faults
}
