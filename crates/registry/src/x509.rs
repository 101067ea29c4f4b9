//! What a certificate says of itself, as far as people are told: whose it is, who issued it, and how long it is good.
//!
//! RFC 5280 section 4.1, in DER. Whether it is to be trusted is decided by the TLS library and nobody else.

use std::time::{Duration, SystemTime};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The common name of whose it is; empty when there is none.
    pub(crate) subject: String,
    /// The common name of who issued it.
    pub(crate) issuer: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// 2.5.4.3, the common name: X.520.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// How much of a name is told, in characters.
const MAX_NAME: usize = 80;

impl Certificate {
    /// Reads a certificate; none when it is none.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).expect(SEQUENCE)?);
        let mut body = Der(certificate.expect(SEQUENCE)?);
        if body.0.first() == Some(&VERSION) {
            body.next()?;
        }
        let (_serial, _algorithm) = (body.next()?, body.next()?);
        let issuer = common_name(body.expect(SEQUENCE)?);
        let mut validity = Der(body.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = common_name(body.expect(SEQUENCE)?);
        Some(Self { subject, issuer, not_before, not_after })
    }

    /// Tells whether it says that who has it issued it.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }
}

/// What is left of a row of values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(count)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// Returns the last common name, which is the most specific; nothing when there is none.
fn common_name(name: &[u8]) -> String {
    let mut found = String::new();
    let mut sets = Der(name);
    while let Some(set) = sets.expect(SET) {
        let mut attributes = Der(set);
        while let Some(attribute) = attributes.expect(SEQUENCE) {
            let mut attribute = Der(attribute);
            if attribute.expect(OID) == Some(COMMON_NAME)
                && let Some((_, text)) = attribute.next()
            {
                let text = String::from_utf8_lossy(text);
                found = text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            }
        }
    }
    found
}

/// `YYMMDDHHMMSSZ`, of which years from 50 on are of the last century, or `YYYYMMDDHHMMSSZ`.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    let seconds = days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Returns the days since 1970-01-01 in the Gregorian calendar: years begin in March, so that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time((UTC_TIME, b"700101000000Z")), Some(at(0)));
        assert_eq!(time((UTC_TIME, b"261129153000Z")), Some(at(1_795_966_200)));
        assert_eq!(time((GENERALIZED_TIME, b"20000229235959Z")), Some(at(951_868_799)));
        assert!(time((UTC_TIME, b"500101000000Z")).unwrap() < at(0));
        for (tag, text) in [
            (UTC_TIME, &b"261129153000"[..]),
            (UTC_TIME, b"261329153000Z"),
            (UTC_TIME, b"2611291530Z"),
            (GENERALIZED_TIME, b"261129153000Z"),
            (0x0c, b"261129153000Z"),
        ] {
            assert_eq!(time((tag, text)), None);
        }
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_how_long_it_is_good() {
        let mut parameters = rcgen::CertificateParams::new(vec!["registry.test".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "registry.test");
        parameters.not_before = rcgen::date_time_ymd(2001, 2, 3);
        parameters.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let read = Certificate::parse(certificate.der()).unwrap();
        assert_eq!((read.subject.as_str(), read.issuer.as_str()), ("registry.test", "registry.test"));
        assert_eq!(read.not_before, at(981_158_400));
        assert_eq!(read.not_after, at(2_558_995_200));
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let der: &[u8] = certificate.der();
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None);
        }
    }
}
