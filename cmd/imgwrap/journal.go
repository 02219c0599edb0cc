package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgwrap/imgwrap/image"
)

// A journal keeps what became of the images of a bulk, a line of JSON for each,
// so that a run that was ended is taken up by another one.
type journal struct {
	name    string
	file    *os.File
	entries map[journalKey]journalEntry
}

// journalKey is what has to be the same for a result to be of use again.
type journalKey struct {
	Source  string `json:"source"`
	Options string `json:"options"` // image.BulkItem.Key
	Imgwrap string `json:"imgwrap"` // version
}

type journalEntry struct {
	journalKey
	SourceDigest string          `json:"source_digest"`
	State        image.BulkState `json:"state"`
	Image        string          `json:"image"`
	Tag          string          `json:"tag"`
	Digest       string          `json:"digest"`
	Name         string          `json:"name"`
	Release      string          `json:"release"`
	Reason       string          `json:"reason"`
}

// journalStart is how the first line of each journal starts.
const journalStart = `{"source":`

// openJournal opens a journal to go on with, or begins one.
func openJournal(name string) (*journal, error) {
	fail := func(err error) (*journal, error) { return nil, fmt.Errorf("opening --state %s: %w", name, err) }
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fail(err)
	}
	j := &journal{name, file, map[journalKey]journalEntry{}}
	if err := j.read(); err != nil {
		file.Close() //nolint:errcheck // nothing was written
		if errors.As(err, new(*usageError)) {
			return nil, err
		}
		return fail(err)
	}
	return j, nil
}

// read takes in what is there. A line that a killed process has left unfinished
// counts for nothing.
func (j *journal) read() error {
	r := bufio.NewReader(j.file)
	for first := true; ; first = false {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		start := bytes.TrimSuffix(line[:min(len(line), len(journalStart))], []byte("\n"))
		if first && !bytes.HasPrefix([]byte(journalStart), start) {
			return &usageError{fmt.Sprintf("--state %s: it is no state of imgwrap bulk", j.name), "name a file that does not exist yet"}
		}
		if err != nil {
			if len(line) > 0 {
				_, err = j.file.WriteString("\n")
				return err
			}
			return nil
		}
		var e journalEntry
		if json.Unmarshal(line, &e) == nil {
			j.entries[e.journalKey] = e
		}
	}
}

func (j *journal) key(item *image.BulkItem) journalKey {
	return journalKey{item.Source, item.Key, item.Options.Version}
}

// known is what became of an item, if that was no failure.
func (j *journal) known(item *image.BulkItem) (image.BulkResult, bool) {
	e, ok := j.entries[j.key(item)]
	r := image.BulkResult{
		SourceDigest: e.SourceDigest, State: e.State, Image: e.Image, Tag: e.Tag, Digest: e.Digest, Name: e.Name,
		Release: e.Release, Warnings: []string{}, Reason: e.Reason,
	}
	return r, ok && (r.Wrapped() || r.State == image.BulkSkipped)
}

// add writes down what became of an item. Each line is in the file when add
// returns.
func (j *journal) add(item *image.BulkItem, r image.BulkResult) error {
	if was, ok := j.known(item); ok && was.SourceDigest == r.SourceDigest && was.Digest == r.Digest {
		return nil
	}
	line, err := json.Marshal(journalEntry{
		journalKey: j.key(item), SourceDigest: r.SourceDigest, State: r.State, Image: r.Image, Tag: r.Tag, Digest: r.Digest, Name: r.Name,
		Release: r.Release, Reason: r.Reason,
	})
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing --state %s: %w", j.name, err)
	}
	return nil
}

func (j *journal) close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("writing --state %s: %w", j.name, err)
	}
	return nil
}
