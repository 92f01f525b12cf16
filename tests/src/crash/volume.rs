//! File systems in a file, mounted for one test: they can be switched off as a power cut does, be small, or be read-only.

use crate::temp::TempDir;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a file system is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// What mount calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// Whether a mount can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

/// Says, when it is 1, that nothing can be mounted on this machine, so that the tests that have to are left out.
pub const WITHOUT_MOUNTS: &str = "CRASH_WITHOUT_MOUNTS";

/// Whether the environment says that nothing can be mounted here.
pub fn is_without_mounts() -> bool {
    std::env::var(WITHOUT_MOUNTS).is_ok_and(|value| value == "1")
}

/// A file system of its own; unmounted and gone when dropped.
#[derive(Debug)]
pub struct Volume {
    file_system: FileSystem,
    device: String,
    folder: TempDir,
}

impl Volume {
    /// Makes a file system of so many MiB, and mounts it. xfs wants 300 of them.
    ///
    /// # Errors
    /// When this machine does not permit it; the sentence says what can be done.
    pub fn new(file_system: FileSystem, mib: u64) -> Result<Self, String> {
        let folder = TempDir::new(file_system.name());
        let image = folder.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(mib << 20));
        made.map_err(|error| format!("{}: {error}", image.display()))?;
        let image = image.display().to_string();
        match file_system {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", &image])?,
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", &image])?,
        };
        let device = run("losetup", &["--find", "--show", &image]).map_err(refused)?.trim().to_owned();
        let volume = Self { file_system, device, folder };
        std::fs::create_dir(volume.path()).map_err(|error| error.to_string())?;
        volume.mount(Access::ReadWrite).map_err(refused)?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Switches the file system off at once: what was not synced is lost, and so is what the journal had in memory.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn cut_power(&self) -> io::Result<()> {
        let folder = File::open(self.path())?;
        let flags: u32 = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the call reads four bytes from the pointer, which is to such a number.
        let status = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const flags) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Unmounts and mounts again, which plays the file system's journal back. Nobody may have a file open.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn mount_again(&self, access: Access) -> Result<(), String> {
        run("umount", &[&self.path().display().to_string()])?;
        self.mount(access)
    }

    fn mount(&self, access: Access) -> Result<(), String> {
        let access = if access == Access::ReadOnly { "ro" } else { "rw" };
        let path = self.path().display().to_string();
        run("mount", &["-t", self.file_system.name(), "-o", access, &self.device, &path]).map(drop)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A mount that is still in use is somebody else's mistake, which has been told; the machine forgets it in the end.
        let _ = run("umount", &["--lazy", &self.path().display().to_string()]);
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` are the same number: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587D;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH` and `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: the journal in memory is not written first.
const NO_LOG_FLUSH: u32 = 2;

fn refused(error: String) -> String {
    format!(
        "no file system can be mounted here ({error}): run as root where loop devices are permitted, or set {WITHOUT_MOUNTS}=1 to leave these tests out"
    )
}

/// Runs a tool and returns what it prints.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    // Debian keeps these tools where only root looks for them.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(find(program, &path)).args(arguments).output();
    let output = output.map_err(|error| format!("{program} cannot be run ({error}); tests/run --setup installs it"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn find(program: &str, path: &str) -> PathBuf {
    let found = path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.exists());
    found.unwrap_or_else(|| program.into())
}
