//! The databases of users, groups and hosts, as a program without a dynamic loader can read them.

/// From now on this process looks users and groups up in files, and hosts in a file and by DNS, whatever
/// `/etc/nsswitch.conf` names besides. A static program has to say so before its first lookup: the C library would load the
/// modules that are named there, each with a C library of its own, and end in a fault of memory. Does nothing with another C
/// library than glibc, which knows no modules.
pub fn use_files_and_dns_alone() {
    #[cfg(target_env = "gnu")]
    for (database, services) in [
        (c"passwd", c"files"),
        (c"group", c"files"),
        (c"initgroups", c"files"),
        (c"hosts", c"files dns"),
    ] {
        #[expect(
            unsafe_code,
            reason = "glibc copies what both pointers lead to, which are strings that end with a zero"
        )]
        unsafe {
            // Fails for a database that it does not know, and there is nothing to be done about that.
            let _ = __nss_configure_lookup(database.as_ptr(), services.as_ptr());
        }
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc's own, as in its nss.h")]
unsafe extern "C" {
    fn __nss_configure_lookup(
        database: *const libc::c_char,
        services: *const libc::c_char,
    ) -> libc::c_int;
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_found_in_files_and_a_user_of_a_module_is_none() {
        super::use_files_and_dns_alone();
        let found = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 7));
        assert!(found.is_ok_and(|mut all| all.any(|it| it.ip().is_loopback())));
    }
}
