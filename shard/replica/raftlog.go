package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/lni/dragonboat/v4/logger"
)

// raftLogOnce is the one exception to "no package-level state": dragonboat keeps one logger for the
// whole process and panics when it is given a second one.
var raftLogOnce sync.Once

// adoptRaftLog sends dragonboat's log to log. Only the first Host of a process has an effect: if there are several,
// all their Raft lines go to the first one's log. Each line names its replica.
func adoptRaftLog(log *slog.Logger) {
	raftLogOnce.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger {
			return &raftLogger{log: log.With("from", "raft/"+pkg)}
		})
	})
}

// raftLogger adapts an slog.Logger to dragonboat, at lower levels. dragonboat's information and warnings become debug
// messages, and its debug messages are dropped: it warns of every vote of every group, which makes thousands of lines
// when a node is lost, and of other things that a cluster copes with.
type raftLogger struct{ log *slog.Logger }

var _ logger.ILogger = (*raftLogger)(nil)

// SetLevel implements logger.ILogger. It does nothing: log decides.
func (l *raftLogger) SetLevel(logger.LogLevel) {}

// Debugf implements logger.ILogger.
func (l *raftLogger) Debugf(string, ...any) {}

// Infof implements logger.ILogger.
func (l *raftLogger) Infof(format string, args ...any) { l.write(slog.LevelDebug, format, args) }

// Warningf implements logger.ILogger.
func (l *raftLogger) Warningf(format string, args ...any) { l.write(slog.LevelDebug, format, args) }

// Errorf implements logger.ILogger.
func (l *raftLogger) Errorf(format string, args ...any) { l.write(slog.LevelWarn, format, args) }

// Panicf implements logger.ILogger. It must not return: dragonboat calls it when continuing would
// break Raft's promises.
func (l *raftLogger) Panicf(format string, args ...any) {
	l.write(slog.LevelError, format, args)
	panic(fmt.Sprintf(format, args...))
}

func (l *raftLogger) write(level slog.Level, format string, args []any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, fmt.Sprintf(format, args...))
	}
}
