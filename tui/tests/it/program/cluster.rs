//! Slurm on this machine alone: one node with two GPUs that are none, on ports, keys and folders of its own, without systemd.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// GPUs of the node.
const GPUS: u32 = 2;
const DAEMONS: [&str; 4] = ["munged", "slurmctld", "slurmd", "sbatch"];

/// Clusters that were started: tests may share a process, and have one each.
static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// A cluster of one node; ended when it is dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    munged: Child,
    controller: Child,
    node: Child,
}

impl Cluster {
    /// Starts one; none where Slurm is not installed or there is no right to make device files, which is said.
    pub(crate) fn start() -> Option<Self> {
        if let Some(missing) = DAEMONS.iter().find(|name| find(name).is_none()) {
            eprintln!("skipped: {missing} is not installed (make slurm)");
            return None;
        }
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("deltafront-slurm-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        for part in ["state", "spool", "munge"] {
            std::fs::create_dir_all(folder.join(part)).expect("the temporary folder is writable");
        }
        for gpu in 0..GPUS {
            let path = folder.join(format!("gpu{gpu}"));
            let made = Command::new("mknod").arg(path).args(["c", "1", "3"]).status();
            if !made.is_ok_and(|status| status.success()) {
                eprintln!("skipped: device files cannot be made here (mknod wants root)");
                let _ = std::fs::remove_dir_all(&folder);
                return None;
            }
        }
        write_configuration(&folder);
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let munged = daemon("munged", &folder)
            .arg("--foreground")
            .arg(format!("--key-file={}", file("munge/key")))
            .arg(format!("--socket={}", file("munge/socket")))
            .arg(format!("--pid-file={}", file("munge/pid")))
            .arg(format!("--log-file={}", file("munge/log")))
            .arg(format!("--seed-file={}", file("munge/seed")))
            .spawn()
            .expect("munged starts");
        wait_until("munged listens", || folder.join("munge/socket").exists());
        let controller = daemon("slurmctld", &folder);
        let controller = with_file(controller, &folder).spawn().expect("slurmctld starts");
        let node = with_file(daemon("slurmd", &folder), &folder).spawn().expect("slurmd starts");
        let cluster = Self { folder, munged, controller, node };
        wait_until("the node is idle", || cluster.say("sinfo", &["-h", "-o", "%T"]) == "idle");
        Some(cluster)
    }

    /// What its commands need in their environment.
    pub(crate) fn configuration(&self) -> String {
        self.folder.join("slurm.conf").to_string_lossy().into_owned()
    }

    /// What one of its commands says.
    pub(crate) fn say(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        let output = command.args(arguments).env("SLURM_CONF", self.configuration()).output();
        let output = output.expect("it is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `kill -9` of the node's daemon, and another in its place after a while.
    pub(crate) fn kill_node(&mut self, pause: Duration) {
        self.node.kill().expect("it runs");
        self.node.wait().expect("it was killed");
        std::thread::sleep(pause);
        let node = with_file(daemon("slurmd", &self.folder), &self.folder).spawn();
        self.node = node.expect("slurmd starts");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.say("scancel", &["--signal=KILL", "--full", "--me"]);
        self.say("scancel", &["--me"]);
        let begin = Instant::now();
        while !self.say("squeue", &["-h"]).is_empty() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
        }
        for daemon in [&mut self.node, &mut self.controller, &mut self.munged] {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').map(Path::new).chain([Path::new("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn daemon(name: &str, folder: &Path) -> Command {
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.out")));
    let log = log.expect("the folder is writable");
    let mut command = Command::new(find(name).expect("it was found before"));
    let both = log.try_clone().expect("a file");
    command.stdin(Stdio::null()).stdout(both).stderr(log);
    command
}

fn with_file(mut command: Command, folder: &Path) -> Command {
    command.arg("-D").arg("-f").arg(folder.join("slurm.conf"));
    command
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two ports that are free.
fn ports() -> [u16; 2] {
    let listeners = [(); 2]
        .map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback is there"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn write_configuration(folder: &Path) {
    let text = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().expect("it is there");
        String::from_utf8(output.stdout).expect("it is UTF-8").trim().to_owned()
    };
    let (host, user) = (text("hostname", "-s"), text("id", "-un"));
    let [controller, node] = ports();
    let place = folder.display();
    let slurm = format!(
        "ClusterName=deltafront\n\
         SlurmctldHost={host}(127.0.0.1)\n\
         SlurmctldPort={controller}\n\
         SlurmdPort={node}\n\
         SlurmUser={user}\n\
         SlurmdUser={user}\n\
         AuthType=auth/munge\n\
         CredType=cred/munge\n\
         AuthInfo=socket={place}/munge/socket\n\
         StateSaveLocation={place}/state\n\
         SlurmdSpoolDir={place}/spool\n\
         SlurmctldPidFile={place}/slurmctld.pid\n\
         SlurmdPidFile={place}/slurmd.pid\n\
         ProctrackType=proctrack/pgid\n\
         TaskPlugin=task/none\n\
         MpiDefault=none\n\
         ReturnToService=2\n\
         SelectType=select/cons_tres\n\
         SelectTypeParameters=CR_Core\n\
         SlurmdParameters=config_overrides\n\
         GresTypes=gpu\n\
         MailProg=/bin/true\n\
         MinJobAge=2\n\
         KillWait=2\n\
         SlurmdTimeout=30\n\
         NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=500 Gres=gpu:{GPUS} State=UNKNOWN\n\
         PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP\n"
    );
    std::fs::write(folder.join("slurm.conf"), slurm).expect("the folder is writable");
    let gpu = |gpu| format!("NodeName={host} Name=gpu File={place}/gpu{gpu}\n");
    let gres: String = (0..GPUS).map(gpu).collect();
    std::fs::write(folder.join("gres.conf"), format!("AutoDetect=off\n{gres}"))
        .expect("the folder is writable");
    let key = folder.join("munge/key");
    let digits: Vec<u8> = (0..128_u32).map(|i| (i * 37 % 251) as u8).collect();
    std::fs::write(&key, digits).expect("the folder is writable");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&key, private).expect("it is ours");
}
