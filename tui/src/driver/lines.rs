//! Lines of a stream that need not have any: whatever a child writes, and however fast, takes bounded memory here.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// A line, or as much of one as is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// The whole line, without its end.
    Whole(Vec<u8>),
    /// The first bytes of a line that is longer than what is kept.
    Beginning(Vec<u8>),
}

/// Reads lines of at most `most` bytes. What a longer one has beyond is passed over.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    stream: R,
    most: usize,
    /// What is read of the line so far. It stays here when a read is given up.
    begun: Vec<u8>,
    /// Whether the rest of a line whose beginning was given out is still to be passed over.
    passing_over: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(stream: R, most: usize) -> Self {
        Self { stream, most, begun: Vec::new(), passing_over: false }
    }

    /// The next line; none at the end. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let ready = self.stream.fill_buf().await?;
            if ready.is_empty() {
                let last = std::mem::take(&mut self.begun);
                return Ok((!last.is_empty()).then_some(Line::Whole(last)));
            }
            let end = ready.iter().position(|&byte| byte == b'\n');
            let part = &ready[..end.unwrap_or(ready.len())];
            let taken = part.len() + usize::from(end.is_some());
            if self.passing_over {
                self.passing_over = end.is_none();
                self.stream.consume(taken);
                continue;
            }
            let room = self.most - self.begun.len();
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.len() > room {
                self.passing_over = end.is_none();
                self.stream.consume(taken);
                return Ok(Some(Line::Beginning(std::mem::take(&mut self.begun))));
            }
            self.stream.consume(taken);
            if end.is_some() {
                return Ok(Some(Line::Whole(std::mem::take(&mut self.begun))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` in pieces of `piece` bytes.
    async fn lines(text: &str, piece: usize, most: usize) -> Vec<(bool, String)> {
        let stream = tokio::io::BufReader::with_capacity(piece, text.as_bytes());
        let mut lines = Lines::new(stream, most);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.expect("memory can be read") {
            let (whole, bytes) = match line {
                Line::Whole(bytes) => (true, bytes),
                Line::Beginning(bytes) => (false, bytes),
            };
            found.push((whole, String::from_utf8(bytes).expect("ASCII")));
        }
        found
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_the_next_ones_whole() {
        let text = "one\n\n0123456789\nlast";
        let whole = |text: &str| (true, text.to_owned());
        for piece in [1, 2, 3, 7, 100] {
            let expected = [whole("one"), whole(""), whole("0123456789"), whole("last")];
            assert_eq!(lines(text, piece, 10).await, expected, "{piece}");
            let cut = [whole("one"), whole(""), (false, "01234".to_owned()), whole("last")];
            assert_eq!(lines(text, piece, 5).await, cut, "{piece}");
        }
    }

    #[tokio::test]
    async fn a_stream_without_an_end_of_line_gives_its_beginning_at_once() {
        let endless = tokio::io::BufReader::new(tokio::io::repeat(b'x'));
        let mut lines = Lines::new(endless, 1000);
        let line = lines.next().await.expect("it can be read");
        assert_eq!(line, Some(Line::Beginning(vec![b'x'; 1000])));
    }
}
