//! visits: how many pages somebody looked at in one go. A step in Rust, with state and timers, and no crate beside the standard library.
//!
//! A record's key is the visitor, its payload a page. A visit ends when nothing has come for `gap` ms of event time (an option, 30 minutes
//! without it); then it is told: who, how many pages, from when to when, the last page.

mod bridge;

use bridge::{Failed, Host, Metric, Run, Setup, State, Step, Timer, NO_RECORD};

struct Visits {
    host: Host,
    gap: i64,
    open: *mut State,
    due: *mut State,
    told: *mut Metric,
}

/// What is kept of a visit that goes on.
struct Visit {
    pages: u64,
    first: i64,
    last: i64,
    page: Vec<u8>,
}

impl Visit {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + self.page.len());
        bytes.extend_from_slice(&self.pages.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.last.to_le_bytes());
        bytes.extend_from_slice(&self.page);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Visit> {
        let word = |at: usize| Some(<[u8; 8]>::try_from(bytes.get(at..at + 8)?).ok()?);
        Some(Visit {
            pages: u64::from_le_bytes(word(0)?),
            first: i64::from_le_bytes(word(8)?),
            last: i64::from_le_bytes(word(16)?),
            page: bytes[24..].to_vec(),
        })
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", c as u32)),
            c => json.push(c),
        }
    }
    json + "\""
}

impl Visits {
    /// The visit of the current key.
    fn visit(&self) -> Result<Option<Visit>, Failed> {
        match self.host.get(self.open)? {
            None => Ok(None),
            Some(bytes) => match Visit::read(&bytes) {
                Some(visit) => Ok(Some(visit)),
                None => self.host.fail(NO_RECORD, "StateError", "what is kept of a visit cannot be read"),
            },
        }
    }

    /// Emits a visit.
    fn tell(&self, visit: &Visit, from: u32, key: &[u8]) -> Result<(), Failed> {
        let text = format!(
            "{{\"visitor\":{},\"pages\":{},\"from\":{},\"to\":{},\"last\":{}}}",
            quoted(&String::from_utf8_lossy(key)),
            visit.pages,
            visit.first,
            visit.last,
            quoted(&String::from_utf8_lossy(&visit.page)),
        );
        self.host.count(self.told);
        self.host.emit(from, text.as_bytes())?;
        Ok(())
    }
}

impl Step for Visits {
    fn open(host: Host, setup: &Setup) -> Result<Visits, Failed> {
        let gap = match setup.option("gap").unwrap_or("1800000").parse() {
            Ok(gap) => gap,
            Err(_) => return host.fail(NO_RECORD, "Setup", "`gap` must be a number of ms"),
        };
        Ok(Visits { host, gap, open: host.state("open")?, due: host.state("due")?, told: host.metric("visits") })
    }

    fn process(&mut self, run: &Run) -> Result<(), Failed> {
        for (i, record) in run.iter() {
            let at = record.timestamp;
            if std::str::from_utf8(record.payload.get()).is_err() {
                return self.host.fail(i, "TextError", "a page must be UTF-8");
            }
            self.host.use_key_of(i)?;
            let mut visit = match self.visit()? {
                Some(visit) if at <= visit.last + self.gap => visit,
                ended => {
                    if let Some(visit) = ended {
                        self.tell(&visit, i, record.key.get())?; /* event time has not come that far, but it is over */
                    }
                    Visit { pages: 0, first: at, last: at, page: vec![] }
                }
            };
            visit.pages += 1;
            visit.first = visit.first.min(at);
            if at >= visit.last {
                visit.last = at;
                visit.page = record.payload.get().to_vec();
            }
            self.host.put(self.open, &visit.write())?;
            self.host.timer_set(self.due, at + self.gap)?;
        }
        Ok(())
    }

    /// Ends the visit, unless something has come since the timer was set.
    fn timer(&mut self, timer: &Timer) -> Result<(), Failed> {
        let visit = match self.visit()? {
            Some(visit) if visit.last + self.gap <= timer.time => visit,
            _ => return Ok(()),
        };
        self.host.remove(self.open)?;
        self.tell(&visit, NO_RECORD, timer.key.get())
    }
}

export_step!(Visits);
