// Made by `vigilhost influx setup`, which replaces it when its declarations change.
option task = {name: "vigilhost: hosts to hosts_5m", every: 5m, offset: 1m}

recent = from(bucket: "hosts")
    |> range(start: -15m)

isGauge = (r) =>
    (r._measurement == "conntrack" and r._field =~ /^(ip_conntrack_buckets|ip_conntrack_count|ip_conntrack_max)$/) or
    (r._measurement == "cpu" and r._field =~ /^(usage_guest|usage_guest_nice|usage_idle|usage_iowait|usage_irq|usage_nice|usage_softirq|usage_steal|usage_system|usage_user)$/) or
    (r._measurement == "disk" and r._field =~ /^(free|inodes_free|inodes_total|inodes_used|inodes_used_percent|total|used|used_percent)$/) or
    (r._measurement == "diskio" and r._field =~ /^(io_await|io_svctm|io_util)$/) or
    (r._measurement == "kernel" and r._field =~ /^(boot_time|entropy_avail|ksm_general_profit|ksm_max_page_sharing|ksm_pages_shared|ksm_pages_sharing|ksm_pages_to_scan|ksm_pages_unshared|ksm_pages_volatile|ksm_sleep_millisecs|ksm_stable_node_chains|ksm_stable_node_dups)$/) or
    (r._measurement == "linux_sysctl_fs" and r._field =~ /^(aio\-max\-nr|aio\-nr|dentry\-age\-limit|dentry\-nr|dentry\-unused\-nr|dentry\-want\-pages|dquot\-max|dquot\-nr|file\-max|file\-nr|inode\-free\-nr|inode\-nr|inode\-preshrink\-nr|super\-max|super\-nr)$/) or
    (r._measurement == "mem" and r._field =~ /^(active|available|available_percent|buffered|cached|commit_limit|committed_as|dirty|free|high_free|high_total|huge_page_size|huge_pages_free|huge_pages_total|inactive|low_free|low_total|mapped|page_tables|shared|slab|sreclaimable|sunreclaim|swap_cached|swap_free|swap_total|total|used|used_percent|vmalloc_chunk|vmalloc_total|vmalloc_used|write_back|write_back_tmp)$/) or
    (r._measurement == "nagios" and r._field =~ /^(critical_ge|critical_gt|critical_le|critical_lt|max|min|value|warning_ge|warning_gt|warning_le|warning_lt)$/) or
    (r._measurement == "net" and r._field =~ /^(speed)$/) or
    (r._measurement == "pressure" and r._field =~ /^(avg10|avg300|avg60)$/) or
    (r._measurement == "processes" and r._field =~ /^(blocked|dead|idle|paging|parked|running|sleeping|stopped|total|total_threads|unknown|zombies)$/) or
    (r._measurement == "procstat_top" and r._field =~ /^(cpu_usage|memory_rss|num_threads|pid_count)$/) or
    (r._measurement == "swap" and r._field =~ /^(free|total|used|used_percent)$/) or
    (r._measurement == "system" and r._field =~ /^(load1|load15|load5|n_cpus|n_physical_cpus|n_unique_users|n_users)$/) or
    (r._measurement == "temp" and r._field =~ /^(temp)$/) or
    (r._measurement == "timex" and r._field =~ /^(estimated_error_ns|frequency_offset_ppm|loop_time_constant|maxerror_ns|offset_ns|pps_calibration_total|pps_error_total|pps_frequency_ppm|pps_jitter_ns|pps_jitter_total|pps_shift_sec|pps_stability_exceeded_total|pps_stability_ppm|tai_offset_sec|tick_ns)$/) or
    (r._measurement == "vigilhost_agent" and r._field =~ /^(loop_lag_seconds|open_fds|resident_memory_bytes|stuck_mounts|threads|uptime_seconds)$/) or
    (r._measurement == "vigilhost_alerting" and r._field =~ /^(evaluation_seconds|failing_rules|firing|pending|queued|rules)$/) or
    (r._measurement == "vigilhost_backup" and r._field =~ /^(drill_age_seconds|drill_age_target_seconds|duration_seconds|rpo_age_seconds|rpo_target_seconds|rto_measured_seconds|rto_target_seconds)$/) or
    (r._measurement == "vigilhost_backup_target" and r._field =~ /^(expected_bytes|free_bytes|size_bytes)$/) or
    (r._measurement == "vigilhost_collector" and r._field =~ /^(duration_seconds|lateness_seconds|readings)$/) or
    (r._measurement == "vigilhost_exec" and r._field =~ /^(duration_seconds)$/) or
    (r._measurement == "vigilhost_history" and r._field =~ /^(disk_bytes|head_samples|series)$/) or
    (r._measurement == "vigilhost_journal" and r._field =~ /^(bytes|segments|waiting_records)$/) or
    (r._measurement == "vigilhost_journal_reader" and r._field =~ /^(lag_bytes|lag_records|oldest_age_seconds)$/) or
    (r._measurement == "vigilhost_scrape" and r._field =~ /^(duration_seconds|samples)$/) or
    (r._measurement == "vigilhost_sink" and r._field =~ /^(latency_seconds|write_seconds)$/)

recent
    |> filter(fn: (r) => isGauge(r: r))
    |> aggregateWindow(every: 5m, fn: mean, createEmpty: false, timeSrc: "_start")
    |> to(bucket: "hosts_5m")

recent
    |> filter(fn: (r) => isGauge(r: r))
    |> aggregateWindow(every: 5m, fn: min, createEmpty: false, timeSrc: "_start")
    |> map(fn: (r) => ({r with _field: r._field + ".min"}))
    |> to(bucket: "hosts_5m")

recent
    |> filter(fn: (r) => isGauge(r: r))
    |> aggregateWindow(every: 5m, fn: max, createEmpty: false, timeSrc: "_start")
    |> map(fn: (r) => ({r with _field: r._field + ".max"}))
    |> to(bucket: "hosts_5m")

recent
    |> filter(fn: (r) => not isGauge(r: r))
    |> aggregateWindow(every: 5m, fn: last, createEmpty: false, timeSrc: "_start")
    |> to(bucket: "hosts_5m")

