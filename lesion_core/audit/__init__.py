"""The reviewer's command: is everything in a results folder what it claims to be?"""
