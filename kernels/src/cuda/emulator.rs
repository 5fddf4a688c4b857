//! A GPU to test on: the same kernels compiled by g++ and run as fibers (`emulator.hpp`), in a process of its own.
//!
//! It finds wrong arithmetic and wrong indices (against the definitions), reads and writes out of bounds (the address
//! sanitizer watches every buffer), missing barriers and waits (threads run in a shuffled order, asynchronous copies
//! land late, memory begins as NaNs), and launches that cannot end. It says nothing of speed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::compiler::cache_folder;
use super::{Boxes, COMMON, Error, Extent, Launch, Machine, Source};

const HEADER: &str = include_str!("emulator.hpp");
const HOPPER: &str = include_str!("hopper.hpp");
const PAIRS: &str = include_str!("pairs.hpp");

/// The emulator of one kernel source compiled with one set of constants.
#[derive(Debug)]
pub struct Emulator {
    process: Child,
    source: Source,
    defines: Vec<(&'static str, u32)>,
    extent: Extent,
    seed: u64,
}

impl Emulator {
    /// Compiles `source` with `defines` and starts it as a machine of `extent`. `seed` decides the order of threads.
    pub fn start(
        source: Source,
        defines: &[(&'static str, u32)],
        extent: Extent,
        seed: u64,
    ) -> Result<Self, Error> {
        Self::start_text(source, source.text(), defines, extent, seed)
    }

    /// The same for a changed `text`: how tests plant faults.
    pub fn start_text(
        source: Source,
        text: &str,
        defines: &[(&'static str, u32)],
        extent: Extent,
        seed: u64,
    ) -> Result<Self, Error> {
        let program = compile(source, text, defines)?;
        let process = Command::new(program)
            .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Host {
                operation: "starting the emulator".to_owned(),
                error,
            })?;
        Ok(Self { process, source, defines: defines.to_vec(), extent, seed })
    }

    /// Sends `parts` and waits for `answer.len()` bytes.
    fn ask(&mut self, operation: &str, parts: &[&[u8]], answer: &mut [u8]) -> Result<(), Error> {
        let stdin = self.process.stdin.as_mut().expect("the pipe was asked for at the start");
        let sent =
            parts.iter().try_for_each(|part| stdin.write_all(part)).and_then(|()| stdin.flush());
        let stdout = self.process.stdout.as_mut().expect("the pipe was asked for at the start");
        let received = sent.and_then(|()| stdout.read_exact(answer));
        received.map_err(|_| {
            let mut log = String::new();
            if let Some(stderr) = self.process.stderr.as_mut() {
                let _ = stderr.read_to_string(&mut log);
            }
            Error::Emulator { operation: operation.to_owned(), log }
        })
    }
}

impl Machine for Emulator {
    fn extent(&self) -> Extent {
        self.extent
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let mut address = [0; 8];
        self.ask("allocate", &[b"A", &(bytes as u64).to_ne_bytes()], &mut address)?;
        Ok(u64::from_ne_bytes(address))
    }

    fn free(&mut self, address: u64) -> Result<(), Error> {
        self.ask("free", &[b"F", &address.to_ne_bytes()], &mut [0; 8])
    }

    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let size = (bytes.len() as u64).to_ne_bytes();
        self.ask("upload", &[b"U", &address.to_ne_bytes(), &size, bytes], &mut [0; 8])
    }

    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let size = (bytes.len() as u64).to_ne_bytes();
        self.ask("download", &[b"D", &address.to_ne_bytes(), &size], bytes)
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Error> {
        let known = launch.defines.iter().all(|define| self.defines.contains(define));
        if launch.source != self.source || !known {
            return Err(Error::Emulator {
                operation: format!("launch of {}", launch.kernel),
                log: format!(
                    "it was started for {:?} {:?}, not {:?} {:?}",
                    self.source, self.defines, launch.source, launch.defines
                ),
            });
        }
        let name = launch.kernel.as_bytes();
        let mut command = vec![b'L'];
        command.extend((name.len() as u32).to_ne_bytes());
        command.extend(name);
        let numbers = [
            launch.grid.0,
            launch.grid.1,
            launch.threads,
            launch.shared_bytes,
            u32::from(launch.together),
        ];
        for number in numbers {
            command.extend(number.to_ne_bytes());
        }
        self.seed = self.seed.wrapping_add(1);
        command.extend(self.seed.to_ne_bytes());
        let boxes = launch.boxes.iter().flat_map(Boxes::plain);
        let arguments: Vec<u8> = boxes.chain(launch.arguments.iter().copied()).collect();
        command.extend((arguments.len() as u32).to_ne_bytes());
        command.extend(arguments);
        self.ask(&format!("launch of {}", launch.kernel), &[&command], &mut [0; 8])
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where the memory of [`Emulators`] lies in each of their processes, and how much of it there may be.
const SHARED_ADDRESS: u64 = 0x2000_0000_0000;
const SHARED_BYTES: u64 = 1 << 30;

/// A machine that runs every source: an emulator for each, started when it is first asked for, over one memory that all
/// of them map. The sanitizers do not watch that memory; each kernel's own tests have them do so.
#[derive(Debug)]
pub struct Emulators {
    extent: Extent,
    seed: u64,
    file: File,
    path: PathBuf,
    used: u64,
    machines: HashMap<(Source, String), Emulator>,
}

impl Emulators {
    /// A machine of `extent`; `seed` decides the order of threads.
    pub fn start(extent: Extent, seed: u64) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("deltafront-emulators-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let open = || {
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
            file.set_len(SHARED_BYTES)?; // what is not written takes no room
            Ok(file)
        };
        let file = open().map_err(|error| host("making the emulators' memory", error))?;
        Ok(Self { extent, seed, file, path, used: 0, machines: HashMap::new() })
    }

    fn machine(&mut self, launch: &Launch) -> Result<&mut Emulator, Error> {
        let key = (launch.source, format!("{:?}", launch.defines));
        if !self.machines.contains_key(&key) {
            let mut started =
                Emulator::start(launch.source, &launch.defines, self.extent, self.seed)?;
            let path = self.path.as_os_str().as_encoded_bytes();
            let length = (path.len() as u32).to_ne_bytes();
            let [address, bytes] = [SHARED_ADDRESS, SHARED_BYTES].map(u64::to_ne_bytes);
            started.ask("map", &[b"M", &length, path, &address, &bytes], &mut [0; 8])?;
            self.machines.insert(key.clone(), started);
        }
        Ok(self.machines.get_mut(&key).expect("there now"))
    }
}

impl Machine for Emulators {
    fn extent(&self) -> Extent {
        self.extent
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, Error> {
        let at = self.used;
        self.used += (bytes as u64).next_multiple_of(256) + 256;
        if self.used > SHARED_BYTES {
            let log = format!("the {SHARED_BYTES} bytes of the emulators are used up");
            return Err(Error::Emulator { operation: "allocate".to_owned(), log });
        }
        self.upload(SHARED_ADDRESS + at, &vec![0xff; bytes])?;
        Ok(SHARED_ADDRESS + at)
    }

    fn free(&mut self, _address: u64) -> Result<(), Error> {
        Ok(()) // all of it ends with the machine
    }

    fn upload(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let at = address - SHARED_ADDRESS;
        self.file.write_all_at(bytes, at).map_err(|error| host("writing memory", error))
    }

    fn download(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let at = address - SHARED_ADDRESS;
        self.file.read_exact_at(bytes, at).map_err(|error| host("reading memory", error))
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), Error> {
        self.machine(launch)?.launch(launch)
    }
}

impl Drop for Emulators {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn host(operation: &str, error: std::io::Error) -> Error {
    Error::Host { operation: operation.to_owned(), error }
}

/// The program, from the cache if this text was compiled before.
fn compile(source: Source, text: &str, defines: &[(&'static str, u32)]) -> Result<PathBuf, Error> {
    let mut options: Vec<String> = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-Wno-unknown-pragmas",
    ]
    .map(str::to_owned)
    .to_vec();
    options.extend(defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    let part = |name: &str, text: &str| {
        format!("#line 1 \"{name}\"\n{}\n", text.replace("#pragma once", ""))
    };
    let hopper = if source.for_hopper() { part("hopper.hpp", HOPPER) } else { String::new() };
    let pairs = if source.has_pairs() { part("pairs.hpp", PAIRS) } else { String::new() };
    let full = part("emulator.hpp", HEADER)
        + &hopper
        + &pairs
        + &part("common.cuh", COMMON)
        + &part(source.name(), text);
    let key = blake3::hash(format!("{}\n{full}", options.join(" ")).as_bytes()).to_hex();
    let folder = cache_folder().join("emulator");
    let program = folder.join(key.as_str());
    if program.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder).map_err(|e| host("making the cache folder", e))?;
    let (cpp, partial) =
        (folder.join(format!("{key}.cpp")), folder.join(format!("{key}.{}", std::process::id())));
    std::fs::write(&cpp, full).map_err(|e| host("writing the source", e))?;
    let output = Command::new("g++")
        .args(&options)
        .arg(&cpp)
        .arg("-o")
        .arg(&partial)
        .output()
        .map_err(|e| host("running g++ (install a C++ compiler)", e))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr).chars().take(4000).collect();
        return Err(Error::Compile {
            source_name: source.name(),
            architecture: "the host".to_owned(),
            log,
        });
    }
    std::fs::rename(&partial, &program).map_err(|e| host("keeping the program", e))?;
    let _ = std::fs::remove_file(&cpp);
    Ok(program)
}

/// Whether the emulator can be built here: g++ answers.
pub fn available() -> bool {
    Command::new("g++").arg("--version").output().is_ok_and(|o| o.status.success())
}
