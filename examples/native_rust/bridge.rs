//! bridge_step.h for Rust: the structs as C lays them out, and a safe face for what a step does with them.
//!
//! A step implements [`Step`]; `export_step!` makes the one symbol that a library exports. A panic does not cross the border: it
//! fails the call. Copy this file beside your own.
#![allow(dead_code)]

use std::ffi::{c_void, CStr, CString};
use std::os::raw::{c_char, c_int};

pub const ABI: u32 = 1;
pub const NO_RECORD: u32 = u32::MAX;
pub const OK: c_int = 0;
pub const NONE: c_int = 1;
pub const FAILED: c_int = -1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    data: *const u8,
    size: usize,
}

impl Bytes {
    fn of(bytes: &[u8]) -> Bytes {
        Bytes { data: bytes.as_ptr(), size: bytes.len() }
    }

    /// What it is, for as long as the call lasts that handed it out.
    pub fn get(&self) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

#[repr(C)]
pub struct Header {
    pub name: Bytes,
    pub value: Bytes,
}

#[repr(C)]
pub struct Record {
    pub payload: Bytes,
    pub key: Bytes,
    headers: *const Header,
    pub timestamp: i64,
    header_count: u32,
    pub keyed: u32,
    pub input: u32,
    pub ordinal: u32,
}

impl Record {
    pub fn headers(&self) -> &[Header] {
        if self.header_count == 0 {
            return &[];
        }
        unsafe { std::slice::from_raw_parts(self.headers, self.header_count as usize) }
    }
}

#[repr(C)]
pub struct Run {
    size: u32,
    count: u32,
    stride: usize,
    records: *const u8,
}

impl Run {
    /// The records of the run; the library may be older than the struct, so they are found by their stride.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0..self.count).map(move |i| {
            let at = unsafe { self.records.add(i as usize * self.stride) };
            (i, unsafe { &*(at as *const Record) })
        })
    }
}

#[repr(C)]
struct Output {
    size: u32,
    flags: u32,
    from: u32,
    route: u32,
    payload: Bytes,
    timestamp: i64,
    headers: *const Header,
    header_count: usize,
}

#[repr(C)]
pub struct Timer {
    size: u32,
    pub domain: u32,
    pub time: i64,
    pub key: Bytes,
    pub tag: Bytes,
}

#[repr(C)]
struct Failure {
    size: u32,
    flags: u32,
    record: u32,
    kind: Bytes,
    message: Bytes,
    traceback: Bytes,
}

#[repr(C)]
struct Opt {
    name: *const c_char,
    value: *const c_char,
}

#[repr(C)]
pub struct Setup {
    size: u32,
    pub keyed: u32,
    segment: *const c_char,
    step: *const c_char,
    pub parallelism: u32,
    pub max_parallelism: u32,
    settings: *const Opt,
    setting_count: usize,
    options: *const Opt,
    option_count: usize,
    routes: *const *const c_char,
    pub route_count: usize,
    states: *const c_void,
    pub state_count: usize,
}

impl Setup {
    /// What stands under `options:` by that name.
    pub fn option(&self, name: &str) -> Option<&str> {
        (0..self.option_count).map(|i| unsafe { &*self.options.add(i) }).find_map(|option| unsafe {
            let found = CStr::from_ptr(option.name).to_str() == Ok(name);
            if found { CStr::from_ptr(option.value).to_str().ok() } else { None }
        })
    }
}

enum Context {}
pub enum State {}
pub enum Metric {}

type Call = *const c_void; // of those that this file does not use

#[repr(C)]
pub struct HostTable {
    abi: u32,
    size: u32,
    emit: extern "C" fn(*mut Context, *const Output) -> c_int,
    forward: extern "C" fn(*mut Context, u32, u32, u32) -> c_int,
    memory: Call,
    fail: extern "C" fn(*mut Context, *const Failure) -> c_int,
    log: extern "C" fn(*mut Context, c_int, *const c_char),
    now: extern "C" fn(*mut Context, c_int) -> i64,
    metric: extern "C" fn(*mut Context, *const c_char, c_int) -> *mut Metric,
    metric_update: extern "C" fn(*mut Metric, i64),
    state: extern "C" fn(*mut Context, *const c_char) -> *mut State,
    use_record: extern "C" fn(*mut Context, u32) -> c_int,
    get: extern "C" fn(*mut State, *mut Bytes) -> c_int,
    put: extern "C" fn(*mut State, Bytes) -> c_int,
    remove: extern "C" fn(*mut State) -> c_int,
    edit: Call,
    map: [Call; 6],
    list: [Call; 4],
    timer_set: extern "C" fn(*mut State, c_int, i64, Bytes) -> c_int,
    timer_delete: extern "C" fn(*mut State, c_int, i64, Bytes) -> c_int,
}

/// A call did not do what it had to. When it is handed upwards the run fails; what is said by [`Host::fail`] is why.
pub struct Failed;

/// `Ok` of a call that did it, or found nothing.
fn done(result: c_int) -> Result<bool, Failed> {
    if result < 0 { Err(Failed) } else { Ok(result == OK) }
}

/// What a step can call; good as long as the step.
#[derive(Clone, Copy)]
pub struct Host {
    table: *const HostTable,
    context: *mut Context,
}

pub const EVENT_TIME: c_int = 0;
pub const COUNTER: c_int = 0;

impl Host {
    fn table(&self) -> &HostTable {
        unsafe { &*self.table }
    }

    pub fn forward(&self, record: u32) -> Result<bool, Failed> {
        done((self.table().forward)(self.context, record, 1, 0))
    }

    pub fn emit(&self, from: u32, payload: &[u8]) -> Result<bool, Failed> {
        let output = Output {
            size: std::mem::size_of::<Output>() as u32,
            flags: 0,
            from,
            route: 0,
            payload: Bytes::of(payload),
            timestamp: 0,
            headers: std::ptr::null(),
            header_count: 0,
        };
        done((self.table().emit)(self.context, &output))
    }

    /// Says why the call fails; `Err`, so that it can be returned.
    pub fn fail<T>(&self, record: u32, kind: &str, message: &str) -> Result<T, Failed> {
        let failure = Failure {
            size: std::mem::size_of::<Failure>() as u32,
            flags: 0,
            record,
            kind: Bytes::of(kind.as_bytes()),
            message: Bytes::of(message.as_bytes()),
            traceback: Bytes::of(b""),
        };
        (self.table().fail)(self.context, &failure);
        Err(Failed)
    }

    pub fn state(&self, name: &str) -> Result<*mut State, Failed> {
        let name = CString::new(name).map_err(|_| Failed)?;
        let state = (self.table().state)(self.context, name.as_ptr());
        if state.is_null() {
            return self.fail(NO_RECORD, "Setup", &format!("declare the state {:?}", name));
        }
        Ok(state)
    }

    pub fn metric(&self, name: &str) -> *mut Metric {
        CString::new(name).map_or(std::ptr::null_mut(), |name| {
            (self.table().metric)(self.context, name.as_ptr(), COUNTER)
        })
    }

    pub fn count(&self, metric: *mut Metric) {
        (self.table().metric_update)(metric, 1)
    }

    /// Makes a record's key the current one.
    pub fn use_key_of(&self, record: u32) -> Result<bool, Failed> {
        done((self.table().use_record)(self.context, record))
    }

    /// The value of the current key: a copy, as another call may move it.
    pub fn get(&self, state: *mut State) -> Result<Option<Vec<u8>>, Failed> {
        let mut value = Bytes::of(b"");
        Ok(if done((self.table().get)(state, &mut value))? { Some(value.get().to_vec()) } else { None })
    }

    pub fn put(&self, state: *mut State, value: &[u8]) -> Result<bool, Failed> {
        done((self.table().put)(state, Bytes::of(value)))
    }

    pub fn remove(&self, state: *mut State) -> Result<bool, Failed> {
        done((self.table().remove)(state))
    }

    pub fn timer_set(&self, state: *mut State, time: i64) -> Result<bool, Failed> {
        done((self.table().timer_set)(state, EVENT_TIME, time, Bytes::of(b"")))
    }
}

/// A step: one of it for each subtask.
pub trait Step: Sized {
    fn open(host: Host, setup: &Setup) -> Result<Self, Failed>;
    fn process(&mut self, run: &Run) -> Result<(), Failed>;
    fn timer(&mut self, _timer: &Timer) -> Result<(), Failed> {
        Ok(())
    }
}

#[repr(C)]
pub struct Library {
    abi: u32,
    size: u32,
    load: Call,
    unload: Call,
    open: extern "C" fn(*const HostTable, *mut c_void, *const Setup, *mut c_void, *mut *mut c_void) -> c_int,
    close: extern "C" fn(*mut c_void),
    process: extern "C" fn(*mut c_void, *const Run) -> c_int,
    timer: extern "C" fn(*mut c_void, *const Timer) -> c_int,
    watermark: Call,
    end: Call,
}

unsafe impl Sync for Library {}

/// Runs a call; a panic fails it.
fn guard(call: impl FnOnce() -> Result<(), Failed>) -> c_int {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(Ok(())) => OK,
        _ => FAILED,
    }
}

extern "C" fn open<S: Step>(
    table: *const HostTable,
    context: *mut c_void,
    setup: *const Setup,
    _code: *mut c_void,
    this: *mut *mut c_void,
) -> c_int {
    guard(|| {
        let host = Host { table, context: context as *mut Context };
        let step = Box::new(S::open(host, unsafe { &*setup })?);
        unsafe { *this = Box::into_raw(step) as *mut c_void };
        Ok(())
    })
}

extern "C" fn close<S: Step>(this: *mut c_void) {
    guard(|| {
        drop(unsafe { Box::from_raw(this as *mut S) });
        Ok(())
    });
}

extern "C" fn process<S: Step>(this: *mut c_void, run: *const Run) -> c_int {
    guard(|| unsafe { (*(this as *mut S)).process(&*run) })
}

extern "C" fn timer<S: Step>(this: *mut c_void, timer: *const Timer) -> c_int {
    guard(|| unsafe { (*(this as *mut S)).timer(&*timer) })
}

/// The table of a step.
pub const fn library<S: Step>() -> Library {
    Library {
        abi: ABI,
        size: std::mem::size_of::<Library>() as u32,
        load: std::ptr::null(),
        unload: std::ptr::null(),
        open: open::<S>,
        close: close::<S>,
        process: process::<S>,
        timer: timer::<S>,
        watermark: std::ptr::null(),
        end: std::ptr::null(),
    }
}

/// Makes the one symbol that a library exports.
#[macro_export]
macro_rules! export_step {
    ($step:ty) => {
        static LIBRARY: $crate::bridge::Library = $crate::bridge::library::<$step>();

        #[no_mangle]
        pub extern "C" fn bridge_step_library() -> *const $crate::bridge::Library {
            &LIBRARY
        }
    };
}
