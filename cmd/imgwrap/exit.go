package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/promote"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/requirements"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Exit codes, documented in the help of the root command.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitCheck   = 4
	exitPart    = 5
)

// usageError is a command line that makes no sense.
type usageError struct{ problem, remedy string }

func (e *usageError) Error() string { return e.problem }
func (e *usageError) Hint() string  { return e.remedy }

// exitCode is the one place that maps errors to exit codes.
func exitCode(err error) int {
	var (
		part            *image.PartError
		check           *image.CheckError
		usage           *usageError
		imageUsage      *image.UsageError
		reference       *registry.UsageError
		release         *catalog.UnknownReleaseError
		instrumentation *instrument.UnknownInstrumentationError
		setting         *image.SettingError
		interpreter     *bundle.InterpreterError
		notServed       *bundle.NotServedError
		projectFile     *requirements.MissingFileError
		group           *requirements.GroupError
		propagator      *requirements.UnknownPropagatorError
		stage           *dockerfile.NoStageError
		syntax          *dockerfile.Error
		projectSyntax   *requirements.SyntaxError
		manifest        *promote.Error
		notYAML         *promote.NotYAMLError
	)
	switch {
	case errors.As(err, &part):
		return exitPart
	case errors.As(err, &check):
		return exitCheck
	case image.IsRefused(err), errors.As(err, &syntax), errors.As(err, &projectSyntax),
		errors.As(err, &manifest), errors.As(err, &notYAML):
		return exitRefused
	case errors.As(err, &usage), errors.As(err, &imageUsage), errors.As(err, &reference),
		errors.As(err, &release), errors.As(err, &instrumentation), errors.As(err, &setting),
		errors.As(err, &interpreter), errors.As(err, &notServed),
		errors.As(err, &stage), errors.As(err, &projectFile), errors.As(err, &group), errors.As(err, &propagator):
		return exitUsage
	}
	return exitFailed
}

// report prints an error as one line, or several as one each, with what to do about
// it in another one where that is known, and returns the exit code.
func report(w io.Writer, err error) int {
	for text := range strings.SplitSeq(err.Error(), "\n") { // several that are joined
		fmt.Fprintln(w, "imgwrap: error:", text)
	}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) && hint.Hint() != "" {
		fmt.Fprintln(w, "imgwrap: hint:", hint.Hint())
	}
	return exitCode(err)
}

// lineFormatter prints log entries the way errors are printed.
type lineFormatter struct{}

// Format implements logrus.Formatter.
func (lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	level := ""
	if e.Level != logrus.InfoLevel {
		level = e.Level.String() + ": "
	}
	return []byte("imgwrap: " + level + strings.TrimRight(e.Message, "\n") + "\n"), nil
}
