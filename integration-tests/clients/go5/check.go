// What a case demands: each demand that does not hold ends the case with a sentence.
package main

import (
	"fmt"
	"reflect"
	"time"
)

func that(holds bool, sentence string, args ...any) {
	if !holds {
		panic(fmt.Sprintf(sentence, args...))
	}
}

func equal(expected, actual any, what string) {
	that(reflect.DeepEqual(expected, actual), "%s: expected %s, got %s", what, brief(expected), brief(actual))
}

func must(err error, what string) {
	that(err == nil, "%s: %v", what, err)
}

// Waits until the condition holds.
func eventually(seconds int, what string, condition func() bool) {
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	for !condition() {
		that(time.Now().Before(deadline), "not within %d s: %s", seconds, what)
		time.Sleep(20 * time.Millisecond)
	}
}

func brief(value any) string {
	text := fmt.Sprint(value)
	if len(text) > 300 {
		return text[:300] + "…"
	}
	return text
}
