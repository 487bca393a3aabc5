package delivery

// storeLog is what a store logs: a line when a state begins and one when it
// ends.
type storeLog struct {
	cfg *Config

	disk    condition // the spool cannot be written
	queue   condition // the oldest is dropped for want of space
	damage  condition // files of the spool are damaged
	reading condition // the spool cannot be read at the moment
}

func (l *storeLog) diskFails(err error) {
	if l.disk.begin(0) {
		l.cfg.Logger.Warn("the spool cannot be written: requests wait in memory, and a restart loses them", "dir", l.cfg.Dir,
			"error", err, "max_bytes", l.cfg.MaxMemory, "remedy", "free space on the disk, or correct SPOOL_DIR; it is tried again with each request")
	}
}

func (l *storeLog) diskWorks() {
	if _, ended := l.disk.end(); ended {
		l.cfg.Logger.Info("the spool can be written again", "dir", l.cfg.Dir)
	}
}

func (l *storeLog) foreign(files []string) {
	l.cfg.Logger.Warn("files in the spool directory are not the spool's: they are left alone",
		"dir", l.cfg.Dir, "files", len(files), "first", files[0])
}

func (l *storeLog) found(requests int, bytes int64) {
	l.cfg.Logger.Info("requests wait in the spool", "dir", l.cfg.Dir, "requests", requests, "bytes", bytes)
}

func (l *storeLog) left(requests int, bytes int64) {
	l.cfg.Logger.Info("requests wait in the spool for the next start", "dir", l.cfg.Dir, "requests", requests, "bytes", bytes)
}

func (l *storeLog) full(dropped *item, requests int, bytes int64) {
	if l.queue.begin(dropped.points) {
		l.cfg.Logger.Warn("the queue is full: the oldest data points are dropped", "requests", requests,
			"bytes", bytes, "remedy", "bring the Collector back, or raise SPOOL_MAX_BYTES")
	}
}

// room notes the end of dropping once there is room to spare.
func (l *storeLog) room(s *store) {
	if s.memory <= l.cfg.MaxMemory*3/4 && (s.spool == nil || s.spool.used <= l.cfg.MaxBytes*3/4) {
		if dropped, ended := l.queue.end(); ended {
			l.cfg.Logger.Info("the queue has room again", "dropped_points", dropped)
		}
	}
}

func (l *storeLog) damaged(it *item, err error) {
	if l.damage.begin(it.points) {
		l.cfg.Logger.Warn("a spooled request cannot be read: it is set aside", "dir", l.cfg.Dir,
			"file", it.name()+asideSuffix, "points", it.points, "error", err)
	}
}

func (l *storeLog) unreadable(err error) {
	if l.reading.begin(0) {
		l.cfg.Logger.Warn("the spool cannot be read: what waits there is delivered later", "dir", l.cfg.Dir, "error", err,
			"remedy", "look at the disk and at the limit of open files; it is tried again")
	}
}

// readable notes that a file was read.
func (l *storeLog) readable() {
	dropped, damaged := l.damage.end()
	if _, unread := l.reading.end(); damaged || unread {
		l.cfg.Logger.Info("the spool can be read again", "dropped_points", dropped)
	}
}
