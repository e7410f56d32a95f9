#!/bin/bash
# Runs as root in a clean Debian root, with packages in /srv/packages/{old,new}. Each step is a function; one that fails
# does not keep the others from running. Started by test.sh.
set -uo pipefail
cd /srv

FAILED=0
HELPER=/usr/libexec/xen/bin/xenguest
# Step functions fail by `|| fail WHAT`.
fail() {
    printf '    %s\n' "$*"
    exit 1
}
step() { # FUNCTION
    local output
    if output=$( ("$1") 2>&1); then
        printf 'passed  %s\n' "${1//_/ }"
    else
        printf 'FAILED  %s\n%s\n' "${1//_/ }" "$(tail -n 40 <<<"$output" | sed 's/^/        /')"
        FAILED=1
    fi
}
holds() { [[ $1 == *"$2"* ]] || fail "no ${2@Q} in: ${1:0:1000}"; }

# Sets VERBS.
find_verbs() {
    local verb
    VERBS=()
    for verb in $(dombuild --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\).*/\1/p'); do [[ $verb == help ]] || VERBS+=("$verb"); done
    ((${#VERBS[@]} >= 9)) || fail "only the verbs ${VERBS[*]}"
}

install_the_last_version() {
    apt-get update && apt-get install -y --no-install-recommends /srv/packages/old/dombuild_*.deb /srv/packages/old/dombuild-xenguest_*.deb || fail apt-get
    holds "$(dpkg-query -W dombuild)" 0.1.0-1~deb
}

every_verb_has_help() {
    local verb
    find_verbs
    holds "$(dombuild --help)" 'Usage: dombuild'
    for verb in "${VERBS[@]}"; do holds "$(dombuild "$verb" --help)" "Usage: dombuild $verb"; done
    holds "$(dombuild plan --memory 1GiB)" 'GiB'
    [[ $(command -v dombuild) == /usr/bin/dombuild ]] || fail 'not in /usr/bin'
    dombuild features || fail features
}

every_man_page_has_its_options_and_exit_codes() {
    local verb page option count=0
    # man puts more than one space between words, to make lines equally long.
    page_of() { MANWIDTH=100 man "$1" | sed 's/.\x08//g' | tr -s ' '; }
    find_verbs
    for verb in "${VERBS[@]}"; do
        page=$(page_of "dombuild-$verb") || fail "man dombuild-$verb"
        for option in $(dombuild "$verb" --help | grep -oE '^ +(-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+'); do
            grep -q -e "$option\b" <<<"$page" || fail "dombuild-$verb(1) lacks $option"
            count=$((count + 1))
        done
        holds "$page" 'EXIT STATUS'
        holds "$page" "dombuild-$verb - "
        [[ -z $(man --warnings "dombuild-$verb" 2>&1 >/dev/null) ]] || fail "warnings in dombuild-$verb(1)"
    done
    ((count > 100)) || fail "only $count options"
    page=$(page_of dombuild)
    for option in /run/dombuild /var/log/xen /etc/dombuild/NAME.cfg 'dombuild-create(1)' '130, 143'; do holds "$page" "$option"; done
    [[ $(whatis dombuild-plan) == *memory* ]] || { mandb -q && whatis dombuild-plan; } || fail whatis
}

bash_completes() {
    local out
    out=$(bash -c '. /usr/share/bash-completion/completions/dombuild && complete -p dombuild') || fail 'complete -p'
    holds "$out" ' dombuild'
    out=$(bash -c '. /usr/share/bash-completion/bash_completion && _completion_loader dombuild; COMP_WORDS=(dombuild create --ma) COMP_CWORD=2
        COMP_LINE="dombuild create --ma" COMP_POINT=20; f=$(complete -p dombuild | sed "s/.*-F \([^ ]*\).*/\1/"); $f dombuild --ma create; echo "${COMPREPLY[*]}"')
    holds "$out" '--maxmem'
}

zsh_completes() {
    [[ $(zsh -fc 'autoload -Uz compinit; compinit -u -d /tmp/zcompdump; echo $_comps[dombuild]') == _dombuild ]] || fail compinit
    zsh -n /usr/share/zsh/vendor-completions/_dombuild || fail syntax
}

fish_completes() {
    holds "$(fish -c 'complete -C "dombuild cre"')" create
    holds "$(fish -c 'complete -C "dombuild create --max"')" --maxmem
}

the_units_are_right() {
    local out
    cp /usr/share/doc/dombuild/examples/guest.cfg /etc/dombuild/web.cfg
    dombuild check --strict /etc/dombuild/web.cfg || fail 'the example is no configuration'
    out=$(systemd-analyze verify dombuild-cleanup.service dombuild@web.service 2>&1) || fail "$out"
    [[ $out != *dombuild* ]] || fail "$out"
    [[ $(systemctl is-enabled dombuild-cleanup.service) == enabled ]] || fail 'cleanup is not enabled'
    systemctl enable dombuild@web.service || fail 'a guest cannot be enabled'
    [[ -L /etc/systemd/system/multi-user.target.wants/dombuild@web.service ]] || fail 'no link'
}

# A real systemd, as process 1 of a container, with a stand-in for the program: there is no Xen here. Five guests start in the
# order of their links and stop in the reverse order; a restart leaves a guest to the next run.
services_start_in_order_and_stop() {
    local number=1 name expected
    cat >/srv/stand-in <<-'END'
	#!/bin/bash
	name=$(basename "$2" .cfg)
	[[ $name != web ]] || printf '<%s>\n' "$@" >/srv/arguments
	trap 'echo "$name stopped" >>/srv/events; exit 0' TERM
	trap 'echo "$name left" >>/srv/events; exit 0' USR1
	trap 'echo "$name read" >>/srv/events' HUP
	sleep 0.3
	echo "$name started" >>/srv/events
	systemd-notify --ready
	while :; do sleep 0.1; done
	END
    cat >/srv/job.service <<-'END'
	[Service]
	Type=oneshot
	ExecStart=/bin/bash -c 'cd /run/systemd/generator/multi-user.target.wants && cp -a dombuild@* /run/systemd/system/guests.target.wants/; systemctl daemon-reload; systemctl start guests.target; systemctl reload dombuild@web; sleep 1; systemctl restart dombuild@web; systemctl --no-block exit 0'
	END
    chmod +x /srv/stand-in
    echo 'RUN_ARGS="--restart-limit 3 -- --dm-arg '"'two words'"'"' >/etc/dombuild/web.conf
    for name in d a web b c; do
        [[ $name == web ]] || cp /etc/dombuild/web.cfg "/etc/dombuild/$name.cfg"
        ln -s "../$name.cfg" "/etc/dombuild/auto/${number}0-$name"
        number=$((number + 1))
    done
    ln -s /etc/passwd /etc/dombuild/auto/99-other
    rm -f /srv/events
    timeout 120 unshare --mount --pid --cgroup --net --uts --ipc --fork --kill-child bash -ec '
        mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t sysfs -o ro sysfs /sys && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        # In one transaction, as at a boot: units that are named one by one have no order.
        mkdir -p /run/systemd/system/dombuild@.service.d /run/systemd/system/guests.target.wants
        echo "[Unit]" >/run/systemd/system/guests.target
        printf "[Unit]\nConditionPathExists=\n[Service]\nNotifyAccess=all\n" >/run/systemd/system/dombuild@.service.d/here.conf
        cp /srv/job.service /run/systemd/system/
        mount --bind /srv/stand-in /usr/bin/dombuild
        exec env container=lxc /usr/lib/systemd/systemd --unit=job.service --log-target=null --show-status=false' || fail systemd
    expected='d started a started web started b started c started web read web left web started c stopped b stopped web stopped a stopped d stopped '
    [[ $(tr '\n' ' ' </srv/events) == "$expected" ]] || fail "$(cat /srv/events)"
    [[ $(tr '\n' ' ' </srv/arguments) == '<run> </etc/dombuild/web.cfg> <--restart-limit> <3> <--> <--dm-arg> <two words> ' ]] ||
        fail "$(cat /srv/arguments)"
    rm -f /etc/dombuild/auto/* /etc/dombuild/[abcd].cfg /etc/dombuild/web.conf
}

directories_have_their_modes() {
    rm -rf /run/dombuild /var/cache/dombuild
    systemd-tmpfiles --create dombuild.conf || fail systemd-tmpfiles
    [[ $(stat -c %a:%U /run/dombuild /run/dombuild/empty /var/cache/dombuild /var/cache/dombuild/kernels | tr '\n' ' ') == \
        '700:root 0:root 700:root 700:root ' ]] || fail "$(stat -c '%n %a' /run/dombuild /run/dombuild/empty /var/cache/dombuild/*)"
}

logs_are_rotated() {
    mkdir -p /var/log/xen
    echo line >/var/log/xen/qemu-dm-web.log
    echo earlier >/var/log/xen/qemu-dm-web.log.1
    logrotate --force --state /tmp/logrotate.state /etc/logrotate.d/dombuild || fail logrotate
    [[ ! -s /var/log/xen/qemu-dm-web.log && $(</var/log/xen/qemu-dm-web.log.1) == earlier ]] || fail "$(ls -l /var/log/xen)"
    [[ $(zcat /var/log/xen/qemu-dm-web.log-2*.gz) == line ]] || fail "$(ls -l /var/log/xen)"
}

the_helper_answers_without_an_original() {
    [[ $(readlink -f $HELPER) == /usr/bin/dombuild ]] || fail "$(ls -l $HELPER)"
    [[ $($HELPER -supports migration-v2) == true ]] || fail '-supports'
    holds "$($HELPER -mode hvm_save -domid 1 -fd 3 3>/dev/null 2>&1)" 'error:xc_domain_save '
}

upgrade() {
    local new
    echo '# changed here' >>/etc/logrotate.d/dombuild
    dpkg --force-confdef --force-confold -i /srv/packages/new/dombuild_*.deb /srv/packages/new/dombuild-xenguest_*.deb || fail dpkg
    new=$(dpkg-deb --field /srv/packages/new/dombuild_*.deb Version)
    [[ $(dpkg-query --show --showformat '${Version}' dombuild) == "$new" ]] || fail "$(dpkg-query -W dombuild)"
    tail -n 1 /etc/logrotate.d/dombuild | grep -q 'changed here' || fail 'a changed conffile is overwritten'
    [[ -L /etc/systemd/system/multi-user.target.wants/dombuild@web.service ]] || fail 'the guest is no longer enabled'
    [[ $(dombuild --version) == "dombuild ${new%-*}" ]] || fail "$(dombuild --version)"
}

removal_of_the_helper_leaves_nothing() {
    dpkg --remove dombuild-xenguest || fail dpkg
    [[ ! -e $HELPER && ! -L $HELPER ]] || fail "$(ls -l $HELPER)"
    ! update-alternatives --query xenguest || fail 'the alternative is there'
    [[ -z $(dpkg-divert --list '*xenguest*') ]] || fail 'the diversion is there'
}

an_original_helper_is_kept_and_comes_back() {
    mkdir -p ${HELPER%/*}
    printf '#!/bin/sh\necho "original $*"\n' >$HELPER
    chmod 755 $HELPER
    dpkg -i /srv/packages/new/dombuild-xenguest_*.deb || fail dpkg
    [[ $(readlink -f $HELPER) == /usr/bin/dombuild ]] || fail "$(ls -l $HELPER)"
    [[ $($HELPER -supports migration-v2) == true ]] || fail 'dombuild does not answer'
    [[ $($HELPER -mode hvm_save -domid 1 --fallback $HELPER.orig) == 'original -mode hvm_save -domid 1' ]] ||
        fail 'the original is not reached'
    update-alternatives --set xenguest $HELPER.orig || fail 'the original is no alternative'
    [[ $($HELPER -mode hvm_build) == 'original -mode hvm_build' ]] || fail 'the original was chosen'
    dpkg --purge dombuild-xenguest || fail dpkg
    [[ -f $HELPER && ! -L $HELPER && ! -e $HELPER.orig && $($HELPER x) == 'original x' ]] || fail "$(ls -l ${HELPER%/*})"
    rm -r ${HELPER%/*}
}

removal_keeps_configuration() {
    dpkg --remove dombuild || fail dpkg
    [[ ! -e /usr/bin/dombuild && ! -e /usr/share/man/man1/dombuild.1.gz ]] || fail 'files are left'
    [[ -e /etc/logrotate.d/dombuild && -e /etc/dombuild/web.cfg ]] || fail 'configuration is gone'
}

purge_keeps_the_guests_files_only() {
    local left
    mkdir -p /var/cache/dombuild/kernels && echo x >/var/cache/dombuild/kernels/x
    systemctl disable dombuild@web.service
    rm -f /etc/systemd/system/multi-user.target.wants/dombuild@web.service
    dpkg --purge dombuild || fail dpkg
    left=$(find / -xdev -name '*dombuild*' -not -path '/srv/*' -not -path '/var/cache/man/*' -not -path '/proc/*' -not -path '/dev/*' | sort | tr '\n' ' ')
    [[ $left == '/etc/dombuild ' && $(ls /etc/dombuild | tr '\n' ' ') == 'web.cfg ' ]] || fail "left: $left"
    [[ -e /var/log/xen/qemu-dm-web.log ]] || fail 'a log is gone'
}

for name in install_the_last_version every_verb_has_help every_man_page_has_its_options_and_exit_codes bash_completes zsh_completes \
    fish_completes the_units_are_right services_start_in_order_and_stop directories_have_their_modes logs_are_rotated the_helper_answers_without_an_original upgrade \
    removal_of_the_helper_leaves_nothing an_original_helper_is_kept_and_comes_back removal_keeps_configuration \
    purge_keeps_the_guests_files_only; do
    step $name
done
exit $FAILED
