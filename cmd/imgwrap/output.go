package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// output is the form of a command's result, and the file it goes to besides
// standard output.
type output struct {
	format string // "text" or "json"
	report string // name of the file

	file *os.File // will become the report
}

func (o *output) register(flags *pflag.FlagSet) {
	flags.StringVarP(&o.format, "output", "o", "text", "text or json")
	flags.StringVar(&o.report, "report", "", "write the result as JSON to this file as well")
}

// open checks the flags and that the report can be written, before the work
// that it reports on is done.
func (o *output) open() (err error) {
	if o.format != "text" && o.format != "json" {
		return &usageError{fmt.Sprintf("unknown output %q", o.format), "use -o text or -o json"}
	}
	if o.report != "" {
		if o.file, err = os.CreateTemp(filepath.Dir(o.report), "."+filepath.Base(o.report)+"-*"); err != nil {
			return fmt.Errorf("writing report %s: %w", o.report, err)
		}
	}
	return nil
}

// close removes what a report that was never printed has left.
func (o *output) close() {
	if o.file != nil {
		o.file.Close()           //nolint:errcheck // nothing of it is wanted
		os.Remove(o.file.Name()) //nolint:errcheck // gone if it became the report
	}
}

// print writes a result to standard output, as JSON or as text, and then to the
// report file if one is wanted.
func (o *output) print(w io.Writer, result any, text func(io.Writer) error) error {
	var document bytes.Buffer
	if err := writeJSON(&document, result); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if o.format == "json" {
		text = func(w io.Writer) error {
			_, err := w.Write(document.Bytes())
			return err
		}
	}
	if err := text(w); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if o.file == nil {
		return nil
	}
	_, err := o.file.Write(document.Bytes())
	if err == nil {
		err = o.file.Chmod(0o644)
	}
	if err == nil {
		err = o.file.Close()
	}
	if err == nil {
		err = os.Rename(o.file.Name(), o.report)
	}
	if err != nil {
		return fmt.Errorf("writing report %s: %w", o.report, err)
	}
	return nil
}
