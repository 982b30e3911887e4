# slurmdbd with a MariaDB of its own, for up.sh and down.sh; every variable is theirs.

start_accounting() {
    mkdir -p "$cluster/mysql"
    chown mysql:mysql "$cluster/mysql"
    if [ ! -d "$cluster/mysql/data/mysql" ]; then
        mariadb-install-db --no-defaults --user=mysql --datadir="$cluster/mysql/data" \
            --auth-root-authentication-method=socket --skip-test-db >"$cluster/log/mysql-install.log" 2>&1
    fi
    if ! alive "$cluster/mysql/mariadbd.pid" mariadbd; then
        setsid nohup /usr/sbin/mariadbd --no-defaults --user=mysql --datadir="$cluster/mysql/data" \
            --socket="$cluster/mysql/my.sock" --pid-file="$cluster/mysql/mariadbd.pid" --skip-networking \
            --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2 \
            >"$cluster/log/mariadbd.log" 2>&1 </dev/null &
    fi
    local sql=(mariadb --no-defaults -S "$cluster/mysql/my.sock" -e)
    waitfor 30 "${sql[@]}" 'select 1' || { tail "$cluster/log/mariadbd.log" >&2; exit 1; }
    "${sql[@]}" "create database if not exists slurm_acct;
        create user if not exists 'slurm'@'localhost' identified by 'slurmpw';
        grant all on slurm_acct.* to 'slurm'@'localhost';"
    cat >"$cluster/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$cluster/munge/munge.sock
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((port + 1))
SlurmUser=root
PidFile=$cluster/run/slurmdbd.pid
LogFile=$cluster/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurmpw
StorageLoc=slurm_acct
CONF
    chmod 600 "$cluster/etc/slurmdbd.conf"
    # slurmdbd looks for MariaDB at the client library's default socket.
    alive "$cluster/run/slurmdbd.pid" slurmdbd || MYSQL_UNIX_PORT="$cluster/mysql/my.sock" /usr/sbin/slurmdbd
    waitfor 30 sacctmgr -n -i list cluster || { tail "$cluster/log/slurmdbd.log" >&2; exit 1; }
    sacctmgr -n list cluster format=cluster%30 | grep -qw qlaunch-test || sacctmgr -i add cluster qlaunch-test >&2
    say "accounting"
}

# After slurmctld, which registers what limits may name.
add_accounts() {
    sacctmgr -n list account format=account%30 | grep -qw project && return 0
    sacctmgr -i add account project Description=project Organization=qlaunch >/dev/null
    sacctmgr -i add user "$user" Account=project >/dev/null
    sacctmgr -i add user root Account=root >/dev/null 2>&1 || true
}
