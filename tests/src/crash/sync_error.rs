//! A disk that says EIO to fdatasync: nothing is confirmed after it, and the broker ends so that somebody looks.
