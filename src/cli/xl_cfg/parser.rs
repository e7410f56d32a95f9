//! The grammar of xl's language (`libxlu_cfg_y.y`, tools/libs/util, the same in Xen 4.17 and 4.20).
//!
//! A difference from xl: lists are nested at most 16 deep. No key takes more than two levels.

use super::diagnostic::Diagnostics;
use super::lexer::{BadToken, Lexer, Token, TokenKind};
use super::source::{Place, Source};
use super::value::{List, Piece, Text, Value};

/// The deepest list in lists.
const DEEPEST: usize = 16;

/// `key = value` or `key += value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) append: bool,
    pub(super) value: Value,
}

/// A token that cannot stand where it does, and the reason.
struct Unexpected {
    place: Place,
    message: String,
}

/// The assignments of text number `number`, in their order. What cannot be read is an error, and reading goes on at the next
/// line that begins like an assignment.
pub(super) fn parse(source: &Source, number: usize, diagnostics: &mut Diagnostics) -> Vec<Assignment> {
    let mut lexer = Lexer::new(source, number);
    let first = lexer.next();
    let mut parser = Parser { lexer, source, token: first };
    let mut all = Vec::new();
    loop {
        match parser.token.kind {
            TokenKind::End => return all,
            TokenKind::LineEnd | TokenKind::Semicolon => parser.advance(),
            _ => match parser.assignment() {
                Ok(assignment) => all.push(assignment),
                Err(unexpected) => {
                    diagnostics.error(unexpected.place, unexpected.message);
                    parser.recover();
                }
            },
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    source: &'a Source,
    /// The next token.
    token: Token,
}

impl Parser<'_> {
    fn advance(&mut self) {
        self.token = self.lexer.next();
    }

    fn bytes(&self, place: Place) -> &[u8] {
        self.source.get(place.start..place.end)
    }

    /// The word at a place: up to a blank or the end of the line.
    fn word(&self, place: Place) -> Place {
        let rest = self.source.get(place.start..self.source.bytes().len());
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"'\"[],;#".contains(byte);
        let length = rest.iter().skip(1).take(200).take_while(|byte| !ends(byte)).count().saturating_add(1);
        Place { end: place.start.saturating_add(length).min(self.source.bytes().len()).max(place.end), ..place }
    }

    fn unexpected(&self, expected: &str) -> Unexpected {
        let place = self.token.place;
        let word = self.word(place);
        let text = String::from_utf8_lossy(self.bytes(word)).into_owned();
        let (place, problem) = match &self.token.kind {
            TokenKind::Bad(BadToken::Unclosed) => {
                (place, format!("this text has no second {} in its line", quote(&text)))
            }
            TokenKind::Bad(BadToken::Escape) => {
                (place, r#"a backslash takes one of \ " ' a b f n r t v after it; a backslash itself is \\"#.to_owned())
            }
            TokenKind::Bad(BadToken::NumberEscape) => (
                place,
                r"escapes by number are not read as they are meant, by xl either: write the character itself"
                    .to_owned(),
            ),
            TokenKind::Bad(BadToken::Nul) => (place, "a text has no NUL: xl would cut it there".to_owned()),
            TokenKind::Bad(BadToken::Byte(byte)) => {
                if let Some(hint) = hint_of(*byte, &text) {
                    return Unexpected { place: word, message: hint };
                }
                (word, format!("{text:?} is unknown here; {expected}"))
            }
            TokenKind::LineEnd => (Place { end: place.start, ..place }, format!("the line ends here; {expected}")),
            TokenKind::End => (place, format!("the text ends here; {expected}")),
            TokenKind::Key => (place, key_hint(&text, expected)),
            TokenKind::Text(_) if expected == END => {
                let message = "texts do not join, and ''' and \"\"\" are Python: write one text in one line, or use +=";
                (place, message.to_owned())
            }
            _ => {
                let token = String::from_utf8_lossy(self.bytes(place)).into_owned();
                (place, format!("{token} cannot stand here; {expected}"))
            }
        };
        Unexpected { place, message: problem }
    }

    fn assignment(&mut self) -> Result<Assignment, Unexpected> {
        let key_place = self.token.place;
        if self.token.kind != TokenKind::Key {
            return Err(self.unexpected("a key comes first, as in memory = 1024"));
        }
        let key = String::from_utf8_lossy(self.bytes(key_place)).into_owned();
        self.advance();
        let append = match self.token.kind {
            TokenKind::Assign => false,
            TokenKind::Append => true,
            _ => {
                if let Some(message) = statement_hint(&key) {
                    return Err(Unexpected { place: key_place, message });
                }
                if matches!(self.token.kind, TokenKind::Bad(BadToken::Byte(b'-' | b'A'..=b'Z'))) {
                    return Err(self.bad_key(key_place));
                }
                return Err(self.unexpected(&format!("= or += comes after the key {key}")));
            }
        };
        self.advance();
        let value = self.value(0)?;
        match self.token.kind {
            TokenKind::LineEnd | TokenKind::Semicolon | TokenKind::End => {}
            _ => return Err(self.unexpected(END)),
        }
        Ok(Assignment { key, key_place, append, value })
    }

    fn bad_key(&self, first: Place) -> Unexpected {
        let place = first.to(self.word(self.token.place));
        let text = String::from_utf8_lossy(self.bytes(place));
        let text = text.split('=').next().unwrap_or_default();
        let place = Place { end: first.start.saturating_add(text.len()), ..place };
        let message = format!("{text:?} is no key: a key has lower-case letters, digits, _ and . only");
        Unexpected { place, message }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Unexpected> {
        let place = self.token.place;
        let piece = match &mut self.token.kind {
            TokenKind::Text(bytes) => Piece { place, bytes: std::mem::take(bytes), quoted: true },
            TokenKind::Number => Piece { place, bytes: self.bytes(place).to_vec(), quoted: false },
            TokenKind::Open if depth < DEEPEST => return self.list(depth),
            TokenKind::Open => {
                let message =
                    format!("lists are nested more than {DEEPEST} deep here, and no key takes more than two levels");
                return Err(Unexpected { place, message });
            }
            _ => return Err(self.unexpected("a value is a text in quotes, a number or a list in [ ]")),
        };
        self.advance();
        Ok(Value::Text(Text { pieces: vec![piece], appended: false }))
    }

    fn line_ends(&mut self) {
        while self.token.kind == TokenKind::LineEnd {
            self.advance();
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Unexpected> {
        let open = self.token.place;
        let mut items = Vec::new();
        self.advance();
        self.line_ends();
        while self.token.kind != TokenKind::Close {
            if self.token.kind == TokenKind::End {
                return Err(Unexpected { place: open, message: "this list has no ] at its end".to_owned() });
            }
            items.push(self.value(depth.saturating_add(1))?);
            self.line_ends();
            match self.token.kind {
                TokenKind::Comma => {
                    self.advance();
                    self.line_ends();
                }
                TokenKind::Close => {}
                TokenKind::End => {
                    return Err(Unexpected { place: open, message: "this list has no ] at its end".to_owned() });
                }
                _ => return Err(self.unexpected("a comma comes between two values of a list, and ] at its end")),
            }
        }
        let place = open.to(self.token.place);
        self.advance();
        Ok(Value::List(List { place, items }))
    }

    /// Goes on at the next line that begins with a key and `=`: what stands before may be the rest of a list.
    fn recover(&mut self) {
        loop {
            match self.token.kind {
                TokenKind::End => return,
                TokenKind::LineEnd => {
                    self.advance();
                    let mut ahead = self.lexer.clone();
                    if self.token.kind == TokenKind::Key
                        && matches!(ahead.next().kind, TokenKind::Assign | TokenKind::Append)
                    {
                        return;
                    }
                }
                _ => self.advance(),
            }
        }
    }
}

/// What comes after a value.
const END: &str = "a value is followed by the end of the line, or by ;";

/// What is said of a Python program.
const PYTHON: &str = "this looks like Python, which neither xl nor dombuild runs: write plain values";

fn quote(text: &str) -> &str {
    text.get(..1).unwrap_or("quote")
}

/// What a byte that is no token is likely to be.
fn hint_of(byte: u8, word: &str) -> Option<String> {
    let rest = word.trim_end_matches([')', ',']);
    Some(match (byte, rest) {
        (_, "True") => "True is Python: write 1".to_owned(),
        (_, "False") => "False is Python: write 0".to_owned(),
        (_, "None") => "None is Python: leave the key out".to_owned(),
        (b'-', _) if rest.len() > 1 && rest.bytes().skip(1).all(|byte| byte.is_ascii_digit()) => {
            format!("a negative number stands in quotes: \"{rest}\"")
        }
        (b'\\', "\\") => {
            "a list goes on in the next line without a backslash, and nothing else does: leave it out".to_owned()
        }
        (b'(' | b')' | b'{' | b'}' | b'+' | b'%' | b':' | b'.' | b'*', _) => format!("{word:?} is no value; {PYTHON}"),
        (b'\r', _) => "a carriage return stands here without a line break".to_owned(),
        (b'A'..=b'Z' | b'_', _) if word.contains('=') => {
            let key = word.split('=').next().unwrap_or_default();
            format!("{key:?} is no key: a key has lower-case letters, digits, _ and . only")
        }
        _ => return None,
    })
}

/// What a statement of Python begins with.
fn statement_hint(word: &str) -> Option<String> {
    const WORDS: [&str; 15] = [
        "import", "from", "def", "if", "elif", "else", "for", "while", "print", "class", "return", "try", "except",
        "with", "exec",
    ];
    WORDS.contains(&word).then(|| format!("{word} is no key; {PYTHON}"))
}

/// What a word is likely to be that stands in the place of something else.
fn key_hint(word: &str, expected: &str) -> String {
    match word {
        "true" | "yes" | "on" => format!("{word} is no value: write 1"),
        "false" | "no" | "off" => format!("{word} is no value: write 0"),
        _ if expected == END => format!("{word} cannot stand here; {expected}"),
        _ => format!("{word} stands here without quotes; {expected}"),
    }
}
