package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A form is a way to write a result. Every command has text and JSON.
type form string

const (
	formText     form = "text"
	formJSON     form = "json"
	formEnv      form = "env"      // lines of NAME=VALUE, as CI systems read outputs
	formMarkdown form = "markdown" // fit for the job summaries of CI systems
	formJUnit    form = "junit"    // fit for the test reports of CI systems
)

// reportForms are the forms of reports, by the extension of their file.
var reportForms = map[string]form{".json": formJSON, ".md": formMarkdown, ".xml": formJUnit}

// output is the form of a command's result on standard output, and the files it
// goes to besides.
type output struct {
	format  string
	reports []string // names of files
	forms   []form   // that the command's result has

	files []*os.File // will become the reports
}

// register adds the flags. forms are those that the command's result has besides
// text and JSON.
func (o *output) register(flags *pflag.FlagSet, forms ...form) {
	o.forms = append([]form{formText, formJSON}, forms...)
	flags.StringVarP(&o.format, "output", "o", string(formText), alternatives(o.outputs()))
	flags.StringArrayVar(&o.reports, "report", nil, "write the result to this `FILE` as well, its extension says how: "+alternatives(o.extensions())+" (repeatable)")
}

// outputs are what --output may say.
func (o *output) outputs() (names []string) {
	for _, f := range []form{formText, formJSON, formEnv} {
		if slices.Contains(o.forms, f) {
			names = append(names, string(f))
		}
	}
	return names
}

// extensions are those that --report may have.
func (o *output) extensions() (extensions []string) {
	for _, e := range []string{".json", ".md", ".xml"} {
		if slices.Contains(o.forms, reportForms[e]) {
			extensions = append(extensions, e)
		}
	}
	return extensions
}

// alternatives is "a", "a or b", "a, b or c".
func alternatives(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// open checks the flags and that the reports can be written, before the work
// that they report on is done.
func (o *output) open() error {
	if outputs := o.outputs(); !slices.Contains(outputs, o.format) {
		for i := range outputs {
			outputs[i] = "-o " + outputs[i]
		}
		return &usageError{fmt.Sprintf("unknown output %q", o.format), "use " + alternatives(outputs)}
	}
	for _, name := range o.reports {
		if !slices.Contains(o.extensions(), filepath.Ext(name)) {
			return &usageError{fmt.Sprintf("--report %s: the file's extension says how it is written", name), "give it " + alternatives(o.extensions())}
		}
	}
	for _, name := range o.reports {
		file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
		if err != nil {
			o.close()
			return fmt.Errorf("writing report %s: %w", name, err)
		}
		o.files = append(o.files, file)
	}
	return nil
}

// close removes what reports that were never printed have left.
func (o *output) close() {
	for _, file := range o.files {
		file.Close()           //nolint:errcheck // nothing of it is wanted
		os.Remove(file.Name()) //nolint:errcheck // gone if it became the report
	}
	o.files = nil
}

// result is what a command has found or done, in the forms that it has.
type result struct {
	json     any // with a method writeJSON if it may be large
	text     func(io.Writer) error
	env      []variable
	markdown func(io.Writer) error
	junit    func(io.Writer) error
}

// variable is a line of the form env.
type variable struct{ name, value string }

// imageVariables are those that tell which image came out.
func imageVariables(image, tag, digest string) []variable {
	return []variable{{"image", image}, {"tag", tag}, {"digest", digest}}
}

// writeAll writes a result in one of its forms.
func (r *result) writeAll(w io.Writer, f form) error {
	b := bufio.NewWriter(w)
	if err := r.write(b, f); err != nil {
		return err
	}
	return b.Flush()
}

func (r *result) write(w io.Writer, f form) error {
	switch f {
	case formJSON:
		if large, ok := r.json.(interface{ writeJSON(io.Writer) error }); ok {
			return large.writeJSON(w)
		}
		return writeJSON(w, r.json)
	case formMarkdown:
		return r.markdown(w)
	case formJUnit:
		return r.junit(w)
	case formEnv:
		for _, v := range r.env {
			if _, err := fmt.Fprintf(w, "%s=%s\n", v.name, v.value); err != nil {
				return err
			}
		}
		return nil
	}
	return r.text(w)
}

// print writes a result that has no forms but JSON and text.
func (o *output) print(w io.Writer, document any, text func(io.Writer) error) error {
	return o.deliver(w, result{json: document, text: text})
}

// deliver writes a result to standard output, and then to the report files.
func (o *output) deliver(w io.Writer, r result) error {
	if err := r.writeAll(w, form(o.format)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	for i, name := range o.reports {
		if err := o.report(o.files[i], name, r); err != nil {
			return fmt.Errorf("writing report %s: %w", name, err)
		}
	}
	return nil
}

// report writes a result to a file and gives it the name of the report.
func (o *output) report(file *os.File, name string, r result) error {
	if err := r.writeAll(file, reportForms[filepath.Ext(name)]); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
