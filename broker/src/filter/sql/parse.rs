//! The grammar, from the weakest operator to the strongest; what cannot mean anything is refused with its place.

use super::{Constant, Expr, Order, Place, compare};

/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// Brackets and signs within each other.
pub const DEPTH_MAX: usize = 64;
/// Comparisons of what is compared already.
const CHAIN_MAX: usize = 2;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at} of the expression")]
pub struct SqlError {
    pub what: String,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Whole(i64),
    Float(f64),
    Word(Word),
    Sign(&'static str),
    End,
}

macro_rules! words {
    ($($word:ident $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Word { $($word),* }

        impl Word {
            const ALL: &[(&str, Self)] = &[$(($text, Self::$word)),*];
        }
    };
}

words! {
    Not "NOT",
    And "AND",
    Or "OR",
    Between "BETWEEN",
    In "IN",
    True "TRUE",
    False "FALSE",
    Null "NULL",
    Is "IS",
    Contains "CONTAINS",
    StartsWith "STARTSWITH",
    EndsWith "ENDSWITH",
}

pub(super) fn parse(text: &str) -> Result<Expr, SqlError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let what = format!("the limit of {EXPRESSION_BYTES_MAX} bytes is passed");
        return Err(SqlError { what, at: EXPRESSION_BYTES_MAX });
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expr = parser.or()?;
    let expr = parser.truth(expr)?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.error("the expression is complete, but something follows")),
    }
}

/// The tokens with where they start; the last one is the end.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, SqlError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = &text[at..];
        let error = |what: &str| SqlError { what: what.to_owned(), at };
        let (token, length) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0C => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with("--") => {
                at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                let end = rest[2..].find("*/").ok_or_else(|| error("a comment without end"))?;
                at += end + 4;
                continue;
            }
            b'\'' => quoted(rest).ok_or_else(|| error("a text without end"))?,
            b'0'..=b'9' | b'.' => number(rest).ok_or_else(|| error("not a number"))?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => word(rest),
            _ => {
                let signs = ["<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-"];
                let sign = signs.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| error("a character that means nothing"))?;
                (Token::Sign(sign), sign.len())
            }
        };
        tokens.push((token, at));
        at += length;
    }
    tokens.push((Token::End, at));
    Ok(tokens)
}

/// A text in quotes; two quotes in it stand for one.
fn quoted(rest: &str) -> Option<(Token, usize)> {
    let mut text = String::new();
    let mut from = 1;
    loop {
        let end = from + rest[from..].find('\'')?;
        text.push_str(&rest[from..end]);
        if !rest[end + 1..].starts_with('\'') {
            return Some((Token::Text(text), end + 1));
        }
        text.push('\'');
        from = end + 2;
    }
}

fn number(rest: &str) -> Option<(Token, usize)> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    if rest[end..].starts_with('.') {
        end += 1 + digits(end + 1);
    }
    let mantissa = end;
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        end += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    if end > whole {
        let float: f64 = rest[..end].parse().ok().filter(|float: &f64| float.is_finite())?;
        return (mantissa > 1 || whole > 0).then_some((Token::Float(float), end));
    }
    let long = usize::from(rest[end..].starts_with(['l', 'L']));
    // Stock reads a number with leading zeros as several, which cannot follow each other.
    let plain = whole == 1 || !rest.starts_with('0');
    let number = rest[..end].parse().ok().filter(|_| plain)?;
    Some((Token::Whole(number), end + long))
}

fn word(rest: &str) -> (Token, usize) {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let length = rest.bytes().take_while(part).count();
    let word = &rest[..length];
    let known = Word::ALL.iter().find(|(text, _)| word.eq_ignore_ascii_case(text));
    let token = known.map_or_else(|| Token::Name(word.to_owned()), |(_, word)| Token::Word(*word));
    (token, length)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn error(&self, what: &str) -> SqlError {
        SqlError { what: what.to_owned(), at: self.tokens[self.next].1 }
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == wanted;
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: Word) -> bool {
        self.take(&Token::Word(word))
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), SqlError> {
        if self.take(&Token::Sign(sign)) {
            return Ok(());
        }
        Err(self.error(&format!("`{sign}` is missing")))
    }

    /// What is used where something true or false is wanted.
    fn truth(&self, expr: Expr) -> Result<Expr, SqlError> {
        match expr {
            Expr::Property(_) => Ok(Expr::Truth(expr.into())),
            expr if expr.is_truth() => Ok(expr),
            _ => Err(self.error("what stands before is neither true nor false")),
        }
    }

    /// What was compared is compared once more.
    fn chained(&self, chain: &mut usize) -> Result<(), SqlError> {
        *chain += 1;
        if *chain > CHAIN_MAX {
            return Err(self.error("too many comparisons without AND or OR between them"));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<Expr, SqlError> {
        self.several(Word::Or, Self::and, Expr::Any)
    }

    fn and(&mut self) -> Result<Expr, SqlError> {
        self.several(Word::And, Self::equality, Expr::All)
    }

    /// One of what `each` reads, or several with a word between them.
    fn several(
        &mut self,
        word: Word,
        each: fn(&mut Self) -> Result<Expr, SqlError>,
        together: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, SqlError> {
        let first = each(self)?;
        if *self.peek() != Token::Word(word) {
            return Ok(first);
        }
        let mut all = vec![self.truth(first)?];
        while self.take_word(word) {
            let next = each(self)?;
            all.push(self.truth(next)?);
        }
        Ok(together(all))
    }

    fn equality(&mut self) -> Result<Expr, SqlError> {
        let (mut left, mut chain) = (self.comparison()?, 0);
        loop {
            let not = self.peek() == &Token::Sign("<>");
            if not || self.peek() == &Token::Sign("=") {
                self.next += 1;
                self.chained(&mut chain)?;
                let right = self.comparison()?;
                left = self.equal(left, right)?;
                if not {
                    left = Expr::Not(left.into());
                }
            } else if self.take_word(Word::Is) {
                self.chained(&mut chain)?;
                let not = self.take_word(Word::Not);
                if !self.take_word(Word::Null) {
                    return Err(self.error("NULL is missing"));
                }
                left = Expr::Equal(left.into(), Expr::Constant(Constant::Null).into());
                if not {
                    left = Expr::Not(left.into());
                }
            } else {
                return Ok(left);
            }
        }
    }

    fn equal(&self, left: Expr, right: Expr) -> Result<Expr, SqlError> {
        let null = |expr: &Expr| *expr == Expr::Constant(Constant::Null);
        if null(&left) || null(&right) {
            return Err(self.error("NULL cannot be compared; IS NULL is how to ask for it"));
        }
        if let (Expr::Constant(left @ Constant::Bool(_)), Expr::Constant(right)) = (&left, &right)
            && !matches!(right, Constant::Bool(_))
        {
            return Err(self.error(&format!("{left:?} cannot be compared with {right:?}")));
        }
        Ok(Expr::Equal(left.into(), right.into()))
    }

    fn comparison(&mut self) -> Result<Expr, SqlError> {
        let (mut left, mut chain) = (self.unary()?, 0);
        loop {
            let order = match self.peek() {
                Token::Sign("<") => Order::Less,
                Token::Sign("<=") => Order::LessOrEqual,
                Token::Sign(">") => Order::Greater,
                Token::Sign(">=") => Order::GreaterOrEqual,
                _ => match self.word_comparison(left)? {
                    (expr, true) => {
                        left = expr;
                        self.chained(&mut chain)?;
                        continue;
                    }
                    (expr, false) => return Ok(expr),
                },
            };
            self.next += 1;
            self.chained(&mut chain)?;
            let right = self.unary()?;
            left = self.ordered(left, order, right)?;
        }
    }

    fn ordered(&self, left: Expr, order: Order, right: Expr) -> Result<Expr, SqlError> {
        for side in [&left, &right] {
            let number = matches!(side, Expr::Constant(Constant::Whole(_) | Constant::Float(_)));
            if side.is_truth() || matches!(side, Expr::Constant(_)) && !number {
                return Err(self.error("only numbers and properties are greater or less"));
            }
        }
        Ok(Expr::Compare(left.into(), order, right.into()))
    }

    /// BETWEEN, IN and the like, with NOT or without; says whether there was one.
    fn word_comparison(&mut self, left: Expr) -> Result<(Expr, bool), SqlError> {
        let start = self.next;
        let not = self.take_word(Word::Not);
        let Token::Word(word) = *self.peek() else {
            self.next = start;
            return Ok((left, false));
        };
        self.next += 1;
        let expr = match word {
            Word::Between => self.between(left, not)?,
            Word::In => self.within(left, not)?,
            Word::Contains => self.like(left, Place::Anywhere, not)?,
            Word::StartsWith => self.like(left, Place::Start, not)?,
            Word::EndsWith => self.like(left, Place::End, not)?,
            _ => {
                self.next = start;
                return Ok((left, false));
            }
        };
        Ok((expr, true))
    }

    fn between(&mut self, left: Expr, not: bool) -> Result<Expr, SqlError> {
        let low = self.unary()?;
        if !self.take_word(Word::And) {
            return Err(self.error("AND is missing"));
        }
        let high = self.unary()?;
        if let (Expr::Constant(low), Expr::Constant(high)) = (&low, &high)
            && !not
            && compare(high.value(), low.value()).is_ok_and(std::cmp::Ordering::is_lt)
        {
            return Err(self.error("the first value of BETWEEN is greater than the second"));
        }
        if not {
            let below = self.ordered(left.clone(), Order::Less, low)?;
            let above = self.ordered(left, Order::Greater, high)?;
            return Ok(Expr::Any(vec![below, above]));
        }
        let above = self.ordered(left.clone(), Order::GreaterOrEqual, low)?;
        let below = self.ordered(left, Order::LessOrEqual, high)?;
        Ok(Expr::All(vec![above, below]))
    }

    fn within(&mut self, left: Expr, not: bool) -> Result<Expr, SqlError> {
        let Expr::Property(property) = left else {
            return Err(self.error("IN wants a property before it"));
        };
        self.expect("(")?;
        let mut texts = vec![self.text()?];
        while self.take(&Token::Sign(",")) {
            texts.push(self.text()?);
        }
        self.expect(")")?;
        Ok(Expr::In { property, texts, not })
    }

    fn like(&mut self, left: Expr, place: Place, not: bool) -> Result<Expr, SqlError> {
        let text = self.text()?;
        Ok(Expr::Like { expr: left.into(), place, text, not })
    }

    fn text(&mut self) -> Result<String, SqlError> {
        let Token::Text(text) = self.peek() else {
            return Err(self.error("a text in quotes is missing"));
        };
        let text = text.clone();
        self.next += 1;
        Ok(text)
    }

    fn unary(&mut self) -> Result<Expr, SqlError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(&format!("more than {DEPTH_MAX} within each other")));
        }
        let expr = if self.take(&Token::Sign("+")) {
            self.unary()
        } else if self.take(&Token::Sign("-")) {
            self.unary().map(|expr| match expr {
                Expr::Constant(Constant::Whole(number)) => {
                    Expr::Constant(Constant::Whole(number.wrapping_neg()))
                }
                Expr::Constant(Constant::Float(number)) => Expr::Constant(Constant::Float(-number)),
                expr => Expr::Negate(expr.into()),
            })
        } else if self.take_word(Word::Not) {
            let expr = self.unary()?;
            self.truth(expr).map(|expr| Expr::Not(expr.into()))
        } else {
            self.primary()
        }?;
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, SqlError> {
        let expr = match self.peek().clone() {
            Token::Name(name) => Expr::Property(name),
            Token::Text(text) => Expr::Constant(Constant::Text(text)),
            Token::Whole(number) => Expr::Constant(Constant::Whole(number)),
            Token::Float(number) => Expr::Constant(Constant::Float(number)),
            Token::Word(Word::True) => Expr::Constant(Constant::Bool(true)),
            Token::Word(Word::False) => Expr::Constant(Constant::Bool(false)),
            Token::Word(Word::Null) => Expr::Constant(Constant::Null),
            Token::Sign("(") => {
                self.next += 1;
                let expr = self.or()?;
                self.expect(")")?;
                return Ok(expr);
            }
            _ => return Err(self.error("a value is missing")),
        };
        self.next += 1;
        Ok(expr)
    }
}

impl Expr {
    /// Whether it is true, false or unknown, and nothing else.
    fn is_truth(&self) -> bool {
        match self {
            Self::Constant(constant) => matches!(constant, Constant::Bool(_) | Constant::Null),
            Self::Property(_) | Self::Negate(_) => false,
            _ => true,
        }
    }
}
