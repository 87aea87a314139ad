//! The script that decides many questions in one call (`decide.lua`): how questions are put to it, and how
//! its numbers are read.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script};

use super::policy::{Limit, LimitCheck, LimitDecision};

const SCRIPT: &str = include_str!("decide.lua");
/// A question's limits: three, of four bytes each.
const QUESTION_BYTES: usize = 12;

pub struct DecisionScript(Script);

impl DecisionScript {
    pub fn new() -> DecisionScript {
        DecisionScript(Script::new(SCRIPT))
    }

    /// The numbers for [`read_decision`]. EVALSHA, and EVAL if this server has not seen the script (it is new,
    /// or was restarted).
    pub async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        questions: impl Iterator<Item = &LimitCheck>,
    ) -> Result<Vec<i64>, RedisError> {
        let mut keys = 0_usize;
        let mut limits = Vec::with_capacity(questions.size_hint().0 * QUESTION_BYTES);
        let mut names = KeyBuffer::default();
        for question in questions {
            let LimitCheck {
                address,
                token,
                keeping,
            } = question;
            for limit in [Some(address), token.as_ref(), keeping.as_ref()] {
                limits.extend_from_slice(&limit.map_or(0, |limit| limit.per_minute).to_le_bytes());
                if let Some(limit) = limit {
                    names.push_key(limit);
                    keys += 1;
                }
            }
        }
        let ask = |how: &str, script: &str| {
            let mut command = redis::cmd(how);
            command.arg(script).arg(keys);
            for name in names.iter_keys() {
                command.arg(name);
            }
            command.arg(&limits[..]);
            command
        };
        match ask("EVALSHA", self.0.get_hash())
            .query_async(connection)
            .await
        {
            Err(e) if e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                ask("EVAL", SCRIPT).query_async(connection).await
            }
            answer => answer,
        }
    }
}

/// The names of many limits, in one piece of memory.
#[derive(Default)]
struct KeyBuffer {
    text: String,
    ends: Vec<usize>,
}

impl KeyBuffer {
    fn push_key(&mut self, limit: &Limit) {
        limit.write_redis_key(&mut self.text);
        self.ends.push(self.text.len());
    }

    fn iter_keys(&self) -> impl Iterator<Item = &str> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            self.text
                .get(std::mem::replace(&mut from, *end)..*end)
                .unwrap_or_default()
        })
    }
}

/// No numbers at all: every question passed, and none is kept.
pub fn read_decision(question: &LimitCheck, numbers: &[i64], at: usize) -> Option<LimitDecision> {
    if numbers.is_empty() {
        return Some(LimitDecision::Pass { keep: false });
    }
    let code = *numbers.get(at * 2)?;
    let micros = u64::try_from(*numbers.get(at * 2 + 1)?).ok()?;
    let retry_after = Duration::from_micros(micros);
    match code {
        0 => Some(LimitDecision::Pass { keep: true }),
        1 => Some(LimitDecision::Pass { keep: false }),
        2 => Some(LimitDecision::AddressOver {
            limit: question.address.per_minute,
            retry_after,
        }),
        3 => Some(LimitDecision::TokenOver {
            limit: question.token?.per_minute,
            retry_after,
        }),
        _ => None,
    }
}
