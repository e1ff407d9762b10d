// Package bubble moves the clock of tests that run under testing/synctest.
package bubble

import "time"

// Pass lets d of the bubble's time go by, and all that is due until then happen. It takes no
// real time. Outside of a bubble, where it would, it panics: wait for a condition there.
func Pass(d time.Duration) {
	// A bubble's time begins with the year 2000 and no test lets twenty years pass.
	if time.Now().Year() >= 2020 {
		panic("bubble.Pass is called outside of a synctest bubble")
	}
	<-time.After(d)
}
