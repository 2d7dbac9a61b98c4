"""What starts the jobs without anybody: crontab.example and the units of scripts/systemd, for this installation."""
