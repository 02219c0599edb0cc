package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of times in /proc, in ticks a second: a constant of
// Linux's interface, see proc(5).
const userHZ = 100

// usage is what the processes of an application have used.
type usage struct {
	cpu time.Duration // user and system, since their start
	rss int64         // resident bytes; a page that two share counts twice
}

// usage adds up all processes that have the application's port in their
// environment: those of its container.
func (a *application) usage() (usage, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return usage{}, err
	}
	var total usage
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(append([]byte{0}, environ...), []byte("\x00PORT="+a.port+"\x00")) {
			continue // another, or it has ended
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if err != nil {
			return usage{}, fmt.Errorf("reading what %s uses: %w", a.target.name, err)
		}
		// The second field is a name in parentheses, which may contain blanks.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		var values [3]int64
		for i, field := range []int{14, 15, 24} { // utime, stime, rss
			if values[i], err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
				return usage{}, fmt.Errorf("reading %s: %w", file, err)
			}
		}
		total.cpu += time.Duration(values[0]+values[1]) * time.Second / userHZ
		total.rss += values[2] * int64(os.Getpagesize())
	}
	if total.rss == 0 {
		return usage{}, fmt.Errorf("%s does not run:\n%s", a.target.name, a.Output())
	}
	return total, nil
}
