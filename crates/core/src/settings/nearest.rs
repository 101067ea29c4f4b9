//! The known name that was probably meant.

/// Returns the candidate that takes the fewest changes of single characters, if they are few.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(2);
    let ranked = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    ranked.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Returns how many characters have to be put in, taken out, replaced or swapped with the next one: the distance of optimal
/// string alignment, row by row.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    let cell = |rows: &[Vec<usize>], row: usize, column: usize| {
        rows.get(row).and_then(|row| row.get(column)).copied().unwrap_or(usize::MAX / 2)
    };
    for (at, left) in from.iter().enumerate() {
        rows.push(vec![at + 1]);
        for (column, right) in to.iter().enumerate() {
            let replaced = cell(&rows, at, column) + usize::from(left != right);
            let one_more = cell(&rows, at, column + 1).min(cell(&rows, at + 1, column)) + 1;
            let swapped = at > 0 && column > 0 && from.get(at - 1) == Some(right) && to.get(column - 1) == Some(left);
            let swapped = if swapped { cell(&rows, at - 1, column - 1) + 1 } else { usize::MAX };
            if let Some(row) = rows.last_mut() {
                row.push(replaced.min(one_more).min(swapped));
            }
        }
    }
    cell(&rows, from.len(), to.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (from, to, changes) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
            ("flaw", "lawn", 2),
            ("x", "x", 0),
            ("grcp", "grpc", 1),
        ] {
            assert_eq!(distance(from, to), changes, "{from} {to}");
        }
    }

    #[test]
    fn a_slip_of_the_keyboard_is_found_and_another_word_is_not() {
        let known = ["address", "uid", "gid", "max_recv_message_size"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("max_receive_message_size", known), Some("max_recv_message_size"));
        assert_eq!(nearest("tls_certificate", known), None);
    }
}
